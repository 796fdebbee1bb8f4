"""Find the lines of a block that match: those that hold a needle first, then the expression itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.monitor.logs.memory import find, pass_over
from orchestrator.monitor.logs.needles import across_lines, needles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.monitor.logs.text import Texts

_SPARSE = 4000  # bytes for each line that may hold a needle in vain


class Search:
    """Looks for a pattern in blocks of whole lines."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        certain = None if texts.pattern is None else needles(texts.pattern)
        # A colour may stand in the middle of what is shown as one text.
        self._needles = None if certain is None else (*certain, b"\x1b")
        self._lower = texts.pattern is not None and bool(texts.pattern.flags & re.IGNORECASE)
        self._across = None if texts.pattern is None else across_lines(texts.pattern)

    def spans(self, block: bytes, size: int) -> Iterator[tuple[int, int]]:
        """Yield begin and end of what is wanted of a block's first `size` bytes: whole lines, in order."""
        if self._texts.pattern is None:
            yield 0, size
            return
        for start, end in self.lines(block):
            if start >= size:
                return
            yield start, end

    def lines(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield begin and end of each line of a block that is wanted."""
        if self._texts.pattern is None:
            yield from _lines(block)
            return
        tried = found = 0
        for start, end in self._candidates(block):
            tried += 1
            if self._texts.of(block[start:end]):
                found += 1
                yield start, end
        if tried > 2 * found + len(block) // _SPARSE and self._across is not None:
            self._needles = None  # most lines hold them, and few match

    def lines_backwards(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield the same as `lines`, the last line first."""
        if self._texts.pattern is not None:
            yield from reversed(list(self.lines(block)))
            return
        end = len(block)
        while end > 0:
            start = block.rfind(b"\n", 0, end - 1) + 1
            yield start, end
            end = start

    @property
    def passes_over(self) -> bool:
        """Tell whether pass_over may be of use."""
        return self._needles is not None and not self._lower

    def pass_over(self, path: Path, offset: int) -> int:
        """Return where a log's next line that may be wanted is, or a line before it.

        Args:
            path: the log.
            offset: of the line at which to begin.
        """
        return pass_over(path, offset, self._needles) if self._needles and not self._lower else offset

    def _candidates(self, block: bytes) -> Iterator[tuple[int, int]]:
        if self._needles is not None:
            return _holding(block.lower() if self._lower else block, self._needles)
        if self._across is not None and b"\x1b" not in block and b"\r" not in block and block.isascii():
            return _matching(block, self._across)
        return _lines(block)


def _holding(block: bytes, wanted: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Yield the lines of a block that hold one of some texts."""
    at = {needle: place for needle in wanted if (place := find(block, needle)) >= 0}
    while at:
        first = min(at.values())
        start, end = block.rfind(b"\n", 0, first) + 1, block.find(b"\n", first) + 1 or len(block)
        yield start, end
        at = {
            needle: place
            for needle, before in at.items()
            if (place := before if before >= end else find(block, needle, end)) >= 0
        }


def _matching(block: bytes, pattern: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Yield the lines of some ASCII text in which a match begins, be it that it ends in a later one."""
    text = block.decode("ascii")
    end = 0
    while found := pattern.search(text, end):
        start = text.rfind("\n", 0, found.start()) + 1
        end = text.find("\n", found.start()) + 1 or len(text)
        yield start, end
        if end == len(text):
            return


def _lines(block: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(block):
        end = block.find(b"\n", start) + 1 or len(block)
        yield start, end
        start = end
