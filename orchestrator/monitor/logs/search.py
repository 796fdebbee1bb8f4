"""Find the lines of a block that match: those that hold a needle first, then the expression itself."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

from orchestrator.monitor.logs.needles import needles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.monitor.logs.text import Texts


def _finder() -> Callable[[bytes, bytes, int], int]:
    """Return a search for bytes: the C library's, which is faster than CPython 3.11's where words repeat."""
    try:
        memmem = ctypes.CDLL(None).memmem
    except (AttributeError, OSError):
        return bytes.find
    memmem.restype = ctypes.c_void_p
    memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    address_of = ctypes.pythonapi.PyBytes_AsString
    address_of.restype = ctypes.c_void_p
    address_of.argtypes = (ctypes.py_object,)

    def find(block: bytes, needle: bytes, start: int) -> int:
        base: int = address_of(block)
        found: int | None = memmem(base + start, len(block) - start, needle, len(needle))
        return -1 if found is None else found - base

    return find


class Search:
    """Looks for a pattern in blocks of whole lines."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._needles = None if texts.pattern is None else needles(texts.pattern)
        self._lower = texts.pattern is not None and bool(texts.pattern.flags & re.IGNORECASE)
        self._find = _finder()

    def spans(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield begin and end of what is wanted of a block: whole lines, in order."""
        if self._texts.pattern is None:
            yield 0, len(block)
            return
        yield from self.lines(block)

    def lines(self, block: bytes) -> Iterator[tuple[int, int]]:
        """Yield begin and end of each line of a block that is wanted."""
        if self._texts.pattern is None:
            yield from _lines(block)
            return
        for start, end in self._candidates(block):
            if self._texts.of(block[start:end]):
                yield start, end

    def _candidates(self, block: bytes) -> Iterator[tuple[int, int]]:
        if self._needles is None or b"\x1b" in block:  # a colour may stand in the middle of a needle
            return _lines(block)
        return self._holding(block.lower() if self._lower else block, self._needles)

    def _holding(self, block: bytes, wanted: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
        """Yield the lines that hold one of some texts."""
        at = {needle: self._find(block, needle, 0) for needle in wanted}
        while found := [place for place in at.values() if place >= 0]:
            first = min(found)
            start, end = block.rfind(b"\n", 0, first) + 1, block.find(b"\n", first) + 1 or len(block)
            yield start, end
            for needle, place in at.items():
                if 0 <= place < end:
                    at[needle] = self._find(block, needle, end)


def _lines(block: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(block):
        end = block.find(b"\n", start) + 1 or len(block)
        yield start, end
        start = end
