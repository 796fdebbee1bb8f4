"""Write `metrics.jsonl` so that no record is in it twice, whatever ends the collector.

Beside it lies `.metrics.json`: how long metrics.jsonl was when it was saved, and up to which byte every
log had been taken in by then. A collector that starts cuts metrics.jsonl back to that length and goes on
from those bytes: what was written after the last save is written again, from the same lines. Where it does
not fit metrics.jsonl any more (a host went down, a disk failed, somebody's hand), the last attempt in
metrics.jsonl is taken in anew from its logs, and those after it.

A lock on metrics.jsonl keeps a second collector away, such as one whose supervisor has just been killed.
Where there are no locks, the first one writes no more as soon as it sees that another has saved.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.records import parsed
from orchestrator.rundir import read_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

from orchestrator.rundir import RunDir

_SHARE = 50  # a save may take one part in so many of the time


class Metrics:
    """`metrics.jsonl`, opened for writing by one process at a time.

    Attributes:
        saved: what was saved last: `attempt`, `files` and whatever else the collector keeps. Where that is
            lost: `attempt` alone, the first one to take in anew. Empty when nothing was written yet.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, run_dir: RunDir) -> None:
        self._state_file = run_dir.metrics_state_file
        self._handle = os.open(run_dir.metrics_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._locked = False
        self._mark: tuple[int, int] | None = None
        with contextlib.suppress(OSError):  # a filesystem without locks, such as Lustre without -o flock
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            self._locked = True
        self.saved: dict[str, Any] = read_json(self._state_file) or {}
        size, there = _size(self.saved), os.fstat(self._handle).st_size
        if size is None or size > there or (there and not self.saved):
            size, attempt = _to_keep(run_dir)
            self.saved = {"attempt": attempt}
        self._size = size
        os.ftruncate(self._handle, self._size)
        self._next_save = 0.0

    def add(self, records: Iterable[dict[str, Any]]) -> None:
        """Add records; on a full disk they are lost, and no half line is left."""
        data = "".join(f"{_line(record)}\n" for record in records).encode()
        if not data or self._is_superseded():
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
        if self._is_superseded():
            return
        began = time.monotonic()
        with contextlib.suppress(OSError):
            write_text(self._state_file, json.dumps({"size": self._size, **state}, separators=(",", ":")))
        self._mark = _mark(self._state_file)
        took = time.monotonic() - began
        self._next_save = time.monotonic() + max(1.0, _SHARE * took)

    def _is_superseded(self) -> bool:
        return not self._locked and self._mark not in {None, _mark(self._state_file)}

    def close(self) -> None:
        """Let the file go."""
        os.close(self._handle)


def _mark(path: Path) -> tuple[int, int] | None:
    """Return by what a version of a file is known; None where there is none."""
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _size(saved: dict[str, Any]) -> int | None:
    """Return how long metrics.jsonl was; None for what no collector has saved."""
    size = saved.get("size", 0)
    whole = isinstance(size, int) and size >= 0 and isinstance(saved.get("files", {}), dict)
    return size if whole else None


def _to_keep(run_dir: RunDir) -> tuple[int, int]:
    """Return how much of metrics.jsonl is of attempts before the last one in it, and that one's number."""
    numbers = [attempt.number for attempt in run_dir.attempts()] or [1]
    at = begins = 0
    last = numbers[0]
    with run_dir.metrics_file.open("rb") as file:
        for line in file:
            number = (parsed(line) or {}).get("attempt")
            if isinstance(number, int) and last < number <= numbers[-1]:
                begins, last = at, number
            at += len(line)
    return begins, last


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
