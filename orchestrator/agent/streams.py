"""A log file as one endless run of bytes, however often it is cut short or replaced on the host.

The submit side only ever appends. So a file that was truncated (`logrotate` with `copytruncate`) goes on at
its start, and one that was replaced is read to its end, and read on: whoever had it open still writes there.
"""

from __future__ import annotations

import collections
import contextlib
import os
from typing import Deque, List, Tuple

PIECE = 1 << 18  # bytes
_END = 64  # bytes that are kept of what was read last
_MOST_SOURCES = 8  # files that one name may have stood for and that are still read

Piece = Tuple[int, bytes]


class _Source:
    """One file that a name stands for or stood for; it stays readable when the name is gone."""

    def __init__(self, handle: int, at: int) -> None:
        self.handle = handle
        self.at = at
        self.size = 0
        self._end = b""
        found = os.fstat(handle)
        self.place = found.st_dev, found.st_ino

    def look(self) -> int:
        """Learn the size; return how many bytes were cut off before they could be read."""
        cut = 0
        try:
            size = os.fstat(self.handle).st_size
            again = size < self.at or (size > self.at and self._is_rewritten())
        except OSError:
            return 0  # a disk that fails now may answer later, and an agent that ends here ends the run
        if again:
            cut, self.at, self._end = max(0, self.size - self.at), 0, b""
        self.size = size
        return cut

    def _is_rewritten(self) -> bool:
        """Tell whether other bytes stand where we have read: it was cut, and has outgrown our place since."""
        return os.pread(self.handle, len(self._end), self.at - len(self._end)) != self._end

    def read(self) -> bytes:
        """Return the next piece; b"" when it has been cut off since look(), or cannot be read."""
        try:
            data = os.pread(self.handle, min(PIECE, self.unread), self.at)
        except OSError:
            return b""
        self.at += len(data)
        self._end = data[-_END:] or self._end
        return data

    def rewind(self, to: int) -> None:
        """Go on from another place of the same bytes."""
        self.at, self._end = to, b""

    @property
    def unread(self) -> int:
        return max(0, self.size - self.at)


class Stream:
    """What one name's files held so far, in the order in which it was read.

    Args:
        path: the file's name now; nothing need be there yet.
        have: bytes of it that the submit side has already.

    Attributes:
        read: offset of the next byte that has not been read, in the file at the submit side.
        kept: the submit side has written everything before it.
        lost: bytes that were cut off before they could be read.
    """

    def __init__(self, path: str, have: int = 0) -> None:
        self._path = path
        self._sources: List[_Source] = []
        self._flying: Deque[Piece] = collections.deque()
        self._again: Deque[Piece] = collections.deque()
        self.read = self.kept = have
        self.lost = 0

    @property
    def size(self) -> int:
        """Return the size that the file at the submit side will have when all is there."""
        return self.read + sum(source.unread for source in self._sources)

    @property
    def flying(self) -> int:
        """Return how many bytes have been handed out and not been confirmed."""
        return sum(len(data) for _, data in self._flying)

    @property
    def waiting(self) -> bool:
        """Tell whether next_piece() has something, as far as look() has seen."""
        return bool(self._again) or any(source.unread for source in self._sources)

    def look(self) -> None:
        """See what the name stands for now, and how long it and what it stood for have become."""
        with contextlib.suppress(OSError):
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) not in [source.place for source in self._sources]:
                self._open()
        for source in reversed(self._sources):  # what an older file got before a newer one is read before it
            self.lost += source.look()

    def _open(self) -> None:
        handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._sources.append(_Source(handle, 0 if self._sources else self.read))
        if len(self._sources) > _MOST_SOURCES:
            gone = self._sources.pop(0)
            self.lost += gone.unread
            os.close(gone.handle)

    def next_piece(self) -> Piece | None:
        """Return the next piece to send, with its offset at the submit side; None when there is none."""
        piece = self._again.popleft() if self._again else self._fresh()
        if piece is not None:
            self._flying.append(piece)
        return piece

    def _fresh(self) -> Piece | None:
        for source in self._sources:
            if source.unread:
                data = source.read()
                if not data:
                    continue
                self.read += len(data)
                return self.read - len(data), data
        return None

    def acknowledge(self, end: int) -> None:
        """Forget what has arrived: the submit side has written everything before `end`."""
        self.kept = max(self.kept, end)
        while self._flying and self._flying[0][0] + len(self._flying[0][1]) <= self.kept:
            self._flying.popleft()

    def send_again(self) -> None:
        """Hand out again what has not been confirmed: its connection broke, or there was no room for it."""
        self._again.extendleft(reversed(self._flying))
        self._flying.clear()

    def resume(self, have: int) -> None:
        """Go on from what the submit side has.

        What was cut off here since it was sent is in memory until it is confirmed. A submit side that has
        lost more than that (its disk was emptied) gets the file anew where it is whole, else what is left.
        """
        self.send_again()
        self.kept = have
        while self._again and self._again[0][0] + len(self._again[0][1]) <= have:
            self._again.popleft()
        first = self._again[0][0] if self._again else self.read
        if first > have or have > self.read:
            self._restart(first, have)

    def _restart(self, first: int, have: int) -> None:
        if len(self._sources) < 2 and all(source.at == self.read for source in self._sources):
            self._again.clear()
            self.read = have
            for source in self._sources:
                source.rewind(have)
            return
        moved = [(offset - first + have, data) for offset, data in self._again]
        self._again = collections.deque(moved)
        self.read += have - first

    def close(self) -> None:
        """Let go of the files."""
        for source in self._sources:
            os.close(source.handle)
        self._sources.clear()
