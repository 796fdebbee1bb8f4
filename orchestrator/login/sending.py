"""The login host's side of a fetch: what there is, then the bytes that are asked for."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestrator.errors import OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CHUNK = 1 << 20
# Secrets, and what only a running job can use.
_NEVER = {"secrets.env", "notify.json", "control.json", "agent.pyz"}
_NOT_LOGS = {"rendered", "workdir", *_NEVER}
_RECORDS = (".json", ".jsonl", ".yaml", ".log", ".txt", ".sbatch", ".sh", ".out", ".err")


def send_files(request: Mapping[str, Any], source: BinaryIO, sink: BinaryIO) -> int:
    """Tell what a run directory holds, then send what is asked for.

    Args:
        request: `run_dir` and `what`: `logs`, `all`, or a path below the run directory.
        source: gives one line of JSON: a list of [name, offset, size].
        sink: gets one line of JSON, a list of [name, kind, size, mtime in ns, target of a link], then for
            each file asked for exactly that many bytes.

    Raises:
        OrchestratorError: no such path there.
    """
    run_dir = Path(request["run_dir"])
    entries = list(_entries(run_dir, request["what"]))
    sink.write(json.dumps(entries).encode() + b"\n")
    sink.flush()
    for name, offset, size in json.loads(source.readline() or "[]"):
        _send(run_dir / name, offset, size, sink)
    sink.flush()
    return 0


def _entries(run_dir: Path, what: str) -> Iterator[list[Any]]:
    top = run_dir if what in ("logs", "all") else _below(run_dir, what)
    if top.is_file():
        yield from _entry(run_dir, top)
    for folder, children, files in os.walk(top):
        here = Path(folder)
        children[:] = sorted(c for c in children if what != "logs" or _is_of_logs(here / c, run_dir))
        links = [name for name in children if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = here / name
            if name not in _NEVER and (what != "logs" or name.endswith(_RECORDS)):
                yield from _entry(run_dir, path)


def _is_of_logs(folder: Path, run_dir: Path) -> bool:
    """Tell whether a folder holds records: an attempt or what is below it, not what a script has written."""
    parts = folder.relative_to(run_dir).parts
    return parts[0].startswith("attempt-") and parts[-1] not in _NOT_LOGS


def _below(run_dir: Path, what: str) -> Path:
    path = run_dir / what
    if not path.exists() or not path.resolve().is_relative_to(run_dir.resolve()):
        raise OrchestratorError(Problem("no such path in the run directory", "--what", what))
    return path


def _entry(run_dir: Path, path: Path) -> Iterator[list[Any]]:
    """Yield what is told of a file or a link; nothing of a socket, or of what a running job has removed."""
    name = str(path.relative_to(run_dir))
    with contextlib.suppress(OSError):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            yield [name, "l", 0, found.st_mtime_ns, str(path.readlink())]
        elif stat.S_ISREG(found.st_mode):
            kind = "x" if found.st_mode & stat.S_IXUSR else "-"
            yield [name, kind, found.st_size, found.st_mtime_ns, ""]


def _send(path: Path, offset: int, size: int, sink: BinaryIO) -> None:
    """Send exactly `size` bytes: a log that has grown meanwhile is sent as it was when it was told of."""
    try:
        file = path.open("rb")
    except OSError as error:
        problem = Problem(f"cannot be read any more: {error.strerror}", str(path), fix="fetch again")
        raise OrchestratorError(problem) from error
    with file:
        file.seek(offset)
        while size:
            data = file.read(min(size, _CHUNK))
            if not data:
                raise OrchestratorError(
                    Problem("became shorter while it was sent", str(path), fix="fetch again")
                )
            sink.write(data)
            size -= len(data)
