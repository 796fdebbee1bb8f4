"""When which log was how long: `HOST.times`, a line `EPOCH.mmm NAME SIZE` whenever a log had grown.

A log's bytes between two of its sizes were written between their times; they are given the later one. The
list of a long run on many hosts is itself large, so it is read in blocks, from where it is needed, and what a
search for a name skips is never taken apart.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from typing import TYPE_CHECKING

from orchestrator.monitor.logs.reader import blocks_backwards, file_size, read_at

if TYPE_CHECKING:
    from pathlib import Path

_LINE = 256  # bytes; no line of the list is longer
_PROBE = 4096  # bytes read by one step of a binary search
Entry = tuple[float, int]
"""A time (epoch seconds, the host's clock) and the log's size then."""


class TimeIndex:
    """The times of one log, asked for in the order of its bytes.

    Args:
        path: the host's list; it may be missing, and may grow.
        name: of the log in the list.
        chunk: bytes to read at once.
    """

    def __init__(self, path: Path, name: str, chunk: int = 1 << 16) -> None:
        self.path = path
        self.name = name
        self._key = f" {name} ".encode()
        self._chunk = chunk
        self._next = 0
        self._block = b""
        self._at = 0
        self._entry: Entry = (0.0, 0)

    def start_at(self, offset: int) -> None:
        """Begin at a line of the list that is not behind what will be asked for."""
        self._next, self._block, self._at = offset, b"", 0

    def at(self, end: int) -> tuple[float | None, int]:
        """Return when the log was seen to have `end` bytes, and up to which size that is the answer.

        Args:
            end: never less than the time before.

        Returns:
            Epoch seconds of the host's clock; None where nothing is told.
        """
        while self._entry[1] < end:
            if not self._advance(end):
                return None, sys.maxsize
        return self._entry

    def _advance(self, end: int) -> bool:
        found = self._block.find(self._key, self._at)
        if found < 0:
            return self._load(end)
        self._at = found + len(self._key)
        self._take(found)
        return True

    def _load(self, end: int) -> bool:
        data = read_at(self.path, self._next, self._chunk)
        lines = data.rfind(b"\n") + 1
        if not lines:
            return False
        self._block, self._at, self._next = data[:lines], 0, self._next + lines
        latest = _entry(self._block, self._block.rfind(self._key), self._key)
        if latest is None or latest[1] < end:  # nothing in it is an answer
            self._at = lines
            self._entry = latest or self._entry
        return True

    def _take(self, found: int) -> None:
        entry = _entry(self._block, found, self._key)
        if entry is not None:
            self._entry = (max(entry[0], self._entry[0]), entry[1])


class BackwardIndex:
    """The times of one log, asked for from its end on."""

    def __init__(self, path: Path, name: str, chunk: int = 1 << 12) -> None:
        self._key = f" {name} ".encode()
        self._blocks = blocks_backwards(path, file_size(path), chunk)
        self._entries: list[Entry] = []
        self.offset = 0  # where in the list the earliest block read so far begins

    def at(self, end: int) -> float | None:
        """Return when the log was seen to have `end` bytes, never more than before; None where not told."""
        while not self._entries or self._entries[0][1] >= end:
            block = next(self._blocks, None)
            if block is None:
                break
            self.offset, data = block
            kept = bisect_left(self._entries, end, key=_size) + 1  # what lies behind is not asked for again
            self._entries = [*_entries(data, self._key), *self._entries[:kept]]
        found = bisect_left(self._entries, end, key=_size)
        return self._entries[found][0] if found < len(self._entries) else None


def last_time(path: Path) -> float | None:
    """Return the latest time in a list; None for one that is missing or empty."""
    for _, block in blocks_backwards(path, file_size(path), _PROBE):
        for line in reversed(block.splitlines()):
            if (time := _time(line)) is not None:
                return time
    return None


def first_line_since(path: Path, time: float) -> int:
    """Return the offset of the first line of a list with that time (the host's clock) or a later one."""
    low, high = 0, file_size(path)  # low is a line's beginning, and what is before it is too early
    while high - low > _PROBE:
        middle = (low + high) // 2
        _, newline, rest = read_at(path, middle, 2 * _LINE).partition(b"\n")
        told = _time(rest)
        if newline and told is not None and told < time:
            low = middle + 2 * _LINE - len(rest)
        else:
            high = middle
    return _scan(path, low, time)


def _scan(path: Path, offset: int, time: float) -> int:
    """Look line by line, from a line's beginning."""
    while lines := _whole_lines(read_at(path, offset, 4 * _PROBE)):
        for line in lines:
            told = _time(line)
            if told is not None and told >= time:
                return offset
            offset += len(line)
    return offset


def _whole_lines(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True)


def size_before(path: Path, name: str, offset: int) -> int:
    """Return the size that a list tells of a log before one of its own lines; 0 where it does not."""
    key = f" {name} ".encode()
    for _, block in blocks_backwards(path, offset, 1 << 16):
        if (entry := _entry(block, block.rfind(key), key)) is not None:
            return entry[1]
    return 0


def _entries(block: bytes, key: bytes) -> list[Entry]:
    found = []
    at = block.find(key)
    while at >= 0:
        if (entry := _entry(block, at, key)) is not None:
            found.append(entry)
        at = block.find(key, at + len(key))
    return found


def _entry(block: bytes, at: int, key: bytes) -> Entry | None:
    """Read the line of a block that has `key` at `at`; None for one that was torn."""
    if at < 0:
        return None
    try:
        size = int(block[at + len(key) : block.find(b"\n", at)])
        return float(block[block.rfind(b"\n", 0, at) + 1 : at]), size
    except ValueError:
        return None


def _time(line: bytes) -> float | None:
    try:
        return float(line.partition(b" ")[0])
    except ValueError:
        return None


def _size(entry: Entry) -> int:
    return entry[1]
