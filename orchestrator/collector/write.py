"""Write `metrics.jsonl` so that no record is in it twice, whatever ends the collector.

Beside it lies `.metrics.json`: how long metrics.jsonl was when it was saved, and up to which byte every
log had been taken in by then. A collector that starts cuts metrics.jsonl back to that length and goes on
from those bytes: what was written after the last save is written again, from the same lines. A lock on
metrics.jsonl keeps a second collector away, such as one whose supervisor has just been killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import read_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.rundir import RunDir

_SHARE = 50  # a save may take one part in so many of the time


class Metrics:
    """`metrics.jsonl`, opened for writing by one process at a time.

    Attributes:
        saved: what was saved last: `attempt`, `files` and whatever else the collector keeps.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._state_file = run_dir.metrics_state_file
        self._handle = os.open(run_dir.metrics_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(OSError):  # a filesystem without locks, such as Lustre without -o flock
            fcntl.flock(self._handle, fcntl.LOCK_EX)
        self.saved: dict[str, Any] = read_json(self._state_file) or {}
        self._size = min(os.fstat(self._handle).st_size, int(self.saved.get("size", 0)))
        os.ftruncate(self._handle, self._size)
        self._next_save = 0.0

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Add records; on a full disk they are lost, and no half line is left."""
        data = "".join(f"{_line(record)}\n" for record in records).encode()
        if not data:
            return
        try:
            written = os.pwrite(self._handle, data, self._size)
        except OSError:
            written = 0
        if written == len(data):
            self._size += written
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, self._size)

    def due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() >= self._next_save

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state` with the length that metrics.jsonl has now, all or nothing."""
        began = time.monotonic()
        with contextlib.suppress(OSError):
            write_text(self._state_file, json.dumps({"size": self._size, **state}, separators=(",", ":")))
        took = time.monotonic() - began
        self._next_save = time.monotonic() + max(1.0, _SHARE * took)

    def close(self) -> None:
        """Let the file go."""
        os.close(self._handle)


def _line(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps({name: _told(value) for name, value in record.items()}, ensure_ascii=False)


def _told(value: Any) -> Any:
    """Return a number that strict JSON does not have as the text for it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
