"""One log with its times: the pieces of it that are wanted, in order, each with its place among all logs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.monitor.logs.index import TimeIndex, last_time
from orchestrator.monitor.logs.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.monitor.logs.search import Search
    from orchestrator.monitor.logs.select import Stream


class Piece(NamedTuple):
    """Some whole lines of one log that came at the same time.

    Attributes:
        order: epoch seconds by which pieces are sorted.
        turn: between pieces of the same `order`.
        time: epoch seconds of our clock at which the lines had been written; None where that is not known.
        stream: the log.
        data: the log's own bytes.
    """

    order: float
    turn: int
    time: float | None
    stream: Stream
    data: bytes


class Source:
    """Reads one log from where it begins to be of interest.

    Args:
        stream: the log.
        chunk: bytes to hold of it at most, unless a line is longer.
    """

    def __init__(self, stream: Stream, chunk: int) -> None:
        self.stream = stream
        self.reader = Reader(stream.path, chunk)
        self.index = TimeIndex(stream.index, stream.name, max(4096, chunk // 4))
        self.clock = stream.clock
        self._order = -math.inf

    def pieces(self, search: Search, *, last: bool, now: float | None = None) -> Iterator[Piece]:
        """Yield what has been written since the last call.

        Args:
            search: what is wanted of it.
            last: also a line that has no end yet.
            now: the time of lines that the host has not told the time of.
        """
        for offset, block, size in self.reader.blocks(last=last, pass_over=search.pass_over):
            for start, end in search.spans(block, size):
                yield from self._timed(offset, block, (start, end), now)

    def _timed(self, offset: int, block: bytes, span: tuple[int, int], now: float | None) -> Iterator[Piece]:
        """Cut the lines of a span where another time begins."""
        start, end = span
        while start < end:
            line = block.find(b"\n", start, end) + 1 or end
            told, upto = self.index.at(offset + line)
            cut = end if upto - offset >= end else max(line, block.rfind(b"\n", line, upto - offset) + 1)
            time = now if told is None else told - self.clock
            self._order = max(self._order, self.untimed_order() if time is None else time)
            time = None if time is None else self._order
            turn = self.stream.place if self._order == -math.inf else self.stream.turn
            yield Piece(self._order, turn, time, self.stream, block[start:cut])
            start = cut

    def untimed_order(self) -> float:
        """Return the place of lines without a time: the end of what their host told, or the beginning."""
        told = last_time(self.stream.index)
        return -math.inf if told is None else told - self.clock
