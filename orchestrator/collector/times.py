"""When a line of a log was written: `HOST.times`, looked up for the few lines that tell of a step.

The file is not followed: of 1,000 hosts it has as many lines as the logs. A file that tells of steps keeps
its own place in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BLOCK = 1 << 18
_FAR = 1 << 20  # bytes of the index behind its end; beyond them a file that is read live jumps to the end
_NEAR = 1 << 14


class Index:
    """The time index of one host, as one of its files needs it.

    Args:
        path: `HOST.times`.
        name: the file's name in it: `3.out`, `log`.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = os.fspath(path)
        self._mark = f" {name} ".encode()
        self._offset = 0

    def times(self, ends: Sequence[int], *, live: bool) -> list[float | None]:
        """Return when the bytes up to each of `ends` were there (the host's clock); None where unknown.

        Args:
            ends: offsets in the file, ascending.
            live: the offsets are near the file's end, so their times are near the index's end.
        """
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return [None] * len(ends)
        try:
            return self._search(handle, ends, live)
        except OSError:
            return [None] * len(ends)
        finally:
            os.close(handle)

    def _search(self, handle: int, ends: Sequence[int], live: bool) -> list[float | None]:
        size = os.fstat(handle).st_size
        if live and size - self._offset > _FAR:
            self._offset = size - _NEAR
        found: list[float | None] = []
        while len(found) < len(ends):
            block = os.pread(handle, _BLOCK, self._offset)
            whole = block.rfind(b"\n") + 1
            if not whole:
                break
            used = search(block[:whole], self._mark, ends, found)
            self._offset += used
        return found + [None] * (len(ends) - len(found))


def search(block: bytes, mark: bytes, ends: Sequence[int], found: list[float | None]) -> int:
    """Add times to `found` for the next of `ends`, as far as `block` tells; return the bytes to pass over.

    The line that gave the last time is not passed over: it may give the next one's too.

    Args:
        block: whole lines `EPOCH.mmm NAME SIZE`.
        mark: the file's name between two spaces.
        ends: offsets, ascending.
        found: the times of the first of them.
    """
    place = 0
    while len(found) < len(ends):
        middle = block.find(mark, place)
        if middle < 0:
            return len(block)
        start = block.rfind(b"\n", 0, middle) + 1
        stop = block.find(b"\n", middle)
        try:
            when, size = float(block[start:middle]), int(block[middle + len(mark) : stop])
        except ValueError:
            place = stop
            continue
        while len(found) < len(ends) and ends[len(found)] <= size:
            found.append(when)
        place = start if len(found) == len(ends) else stop
    return place
