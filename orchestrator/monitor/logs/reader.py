"""Read logs of any size in pieces that hold whole lines, forwards and backwards.

Files are opened for each piece and closed again: a large run has more of them than a process may hold open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    PassOver = Callable[[Path, int], int]

LONGEST = 1 << 24
"""Bytes of a line that are shown as one; the rest of a longer one is shown as further lines."""

_TRIES = 4
_LARGEST = 1 << 18  # bytes of a block that is read backwards


def read_at(path: Path, offset: int, size: int) -> bytes:
    """Return up to `size` bytes from an offset; nothing for a file that is not there."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(handle, size, offset)
    finally:
        os.close(handle)


def file_size(path: Path) -> int:
    """Return a file's size in bytes; 0 for one that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Reader:
    """Gives the bytes of a growing file in blocks of whole lines, each once.

    Attributes:
        path: the file; it need not exist yet.
        offset: where the next block begins.
        chunk: bytes of a block, unless a line is longer.
    """

    def __init__(self, path: Path, chunk: int) -> None:
        self.path = path
        self.chunk = chunk
        self.offset = 0
        self._in_vain = 0
        self._searched = 0  # no line ends between `offset` and here

    def blocks(self, *, last: bool, pass_over: PassOver | None = None) -> Iterator[tuple[int, bytes, int]]:
        """Yield what has been written, but for what may be passed over: offset, bytes, how many count.

        Args:
            last: also a line that has no end yet.
            pass_over: returns where to go on, from a path and the offset of a line.
        """
        if not last and not self._has_line():
            return
        size = self.chunk
        while data := self._next(size, pass_over):
            cut = self._cut(data, size, last=last)
            if cut is None:
                size *= 4
                continue
            if not cut:
                return
            start, self.offset, size = self.offset, self.offset + cut, self.chunk
            yield start, data, cut

    def _next(self, size: int, pass_over: PassOver | None) -> bytes:
        """Read on. What is passed over in vain is read twice, so that is given up soon."""
        if pass_over is not None and size == self.chunk and self._in_vain < _TRIES:
            before, self.offset = self.offset, pass_over(self.path, self.offset)
            self._in_vain = self._in_vain + 1 if self.offset == before else 0
        return read_at(self.path, self.offset, size)

    def _cut(self, data: bytes, asked: int, *, last: bool) -> int | None:
        """Return how many bytes to give now; None where more has to be read first."""
        if last and len(data) < asked:
            return len(data)
        lines = data.rfind(b"\n") + 1
        if lines:
            return lines
        if len(data) >= LONGEST:
            return len(data)
        return None if len(data) == asked else 0

    def _has_line(self) -> bool:
        """Tell whether a line has ended; what has been looked at is not read again."""
        self._searched = max(self._searched, self.offset)
        while data := read_at(self.path, self._searched, self.chunk):
            if b"\n" in data or self._searched + len(data) - self.offset >= LONGEST:
                return True
            self._searched += len(data)
        return False

    def begin_again(self) -> None:
        """Go back to the beginning: the file was cut short."""
        self.offset = self._searched = 0

    def unfinished(self, most: int = 4096) -> bytes:
        """Return the end of what has been written since the last line's end."""
        size = file_size(self.path)
        start = max(self.offset, size - most)
        rest = read_at(self.path, start, size - start) if size > start else b""
        return rest[rest.rfind(b"\n") + 1 :]


def blocks_backwards(path: Path, end: int, chunk: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of blocks of whole lines, the last first.

    Args:
        path: the file.
        end: where the last block ends.
        chunk: bytes of that block, unless a line is longer; those before it grow.
    """
    size = chunk
    while end > 0:
        start = max(0, end - size)
        data = read_at(path, start, end - start)
        first = 0 if start == 0 else data.find(b"\n", 0, len(data) - 1) + 1
        if start > 0 and first == 0 and size < LONGEST:
            size *= 4
            continue
        yield start + first, data[first:]
        end, size, chunk = start + first, chunk, min(2 * chunk, _LARGEST)


def last_lines(path: Path) -> Iterator[bytes]:
    """Yield a file's lines, the last one first, without reading more of it than is taken."""
    for _, block in blocks_backwards(path, file_size(path), 1 << 16):
        yield from reversed(block.removesuffix(b"\n").split(b"\n"))


def last_line_end(path: Path) -> int:
    """Return the offset behind the last line that is finished."""
    size = file_size(path)
    for start, block in blocks_backwards(path, size, 1 << 12):
        end = block.rfind(b"\n") + 1
        if end:
            return start + end
    return 0
