"""Write down, by offset, the logs of hosts that do not share the run directory."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan import PlannedHost
    from orchestrator.rundir import AttemptDir


class LogStore:
    """The log files of one attempt, as far as they have arrived."""

    def __init__(self, attempt: AttemptDir) -> None:
        self._attempt = attempt

    def sizes(self, host: PlannedHost) -> dict[str, int]:
        """Return how many bytes of each of a host's files are here: file name -> size."""
        found = {}
        for name in log_names(host):  # by name: the folder holds thousands of other hosts' files
            with contextlib.suppress(OSError):
                found[name] = self._path(host, name).stat().st_size
        return found

    def write(self, host: PlannedHost, message: dict[str, Any], data: bytes) -> int | None:
        """Write a piece where it belongs; return the file's new end, None when it cannot be kept.

        A piece beyond the file's end is refused: the bytes before it are still on their way.
        """
        name, offset = str(message["file"]), int(message["offset"])
        if name not in log_names(host):
            return None
        try:
            handle = os.open(self._path(host, name), os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                if offset > os.fstat(handle).st_size:
                    return None
                return offset + os.pwrite(handle, data, offset)
            finally:
                os.close(handle)
        except OSError:
            return None  # a full disk here: the host keeps the bytes, and says so when it ends

    def _path(self, host: PlannedHost, name: str) -> Path:
        if ".fr." not in name.removeprefix(host.file_name):  # a host of France may be called a.fr
            return self._attempt.logs / name
        self._attempt.dumps.mkdir(exist_ok=True)
        return self._attempt.dumps / name

    def write_record(self, host: PlannedHost, record: dict[str, Any]) -> None:
        """Keep a rank's record that its shim wrote on the host's own disk."""
        path = self._attempt.errors / f"{host.file_name}.rank{int(record['rank'])}.json"
        if record["event"] == "exit" and not path.exists():
            write_json(path, record)


@functools.cache
def log_names(host: PlannedHost) -> frozenset[str]:
    """Return the names of all log files that a host may have."""
    ranks = (f"rank{rank}.{end}" for rank in host.ranks for end in ("out", "err", f"fr.{rank}"))
    return frozenset(f"{host.file_name}.{kind}" for kind in ("log", "times", "samples", *ranks))
