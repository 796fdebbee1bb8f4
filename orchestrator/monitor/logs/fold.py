"""One line for what many ranks say alike: `[0-63] CUDA out of memory`.

Lines are alike when they differ only in what says who and when: the host's name, numbers of ranks, GPUs and
processes, times, addresses. Where they differ, the folded line has a `*`; of a time, that of the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.hosts.ranges import fold_names, fold_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.monitor.logs.select import Stream

_MOST = 4096  # groups that are held at once
_HOLE = "\0"  # in a shape, for what may differ
_TIME = r"(?:\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_LABELS = r"rank|pid|tid|gpu|cuda|device|node|worker|default|process"
_NAMES = (
    rf"(?P<label>(?i:(?<![A-Za-z])(?:{_LABELS})[ _]{{0,12}}[:=#(\[]?\s?))(?P<number>\d+)(?![\d.])"
    rf"|{_TIME}"
    r"|(?<![A-Za-z0-9])[IWEF]\d{4}(?=\s\d\d:)"  # the date that glog, and so c10d, writes: W1121 16:58:24
    r"|0x[0-9a-fA-F]+"
    r"|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?(?![\d.])"
    r"|(?<=:)\d+:\d+ \[\d+\](?= NCCL )"  # NCCL's host:process:thread [GPU]
    r"|(?<=\[)\d+(?=\]:)"  # [13]: as torchrun's --tee and mpirun --tag-output write it
)
_IS_TIME = re.compile(_TIME)


class Line(NamedTuple):
    """One text of one log, and when: the order that folding goes by, and the time that is known."""

    order: float
    time: float | None
    stream: Stream
    text: str


@dataclass
class Folded:
    """A line, and the logs that said the like.

    Attributes:
        line: the first of them.
        values: what was in the places that may differ.
        others: streams of the others, in the order of their lines.
        differing: places where others have other values.
    """

    line: Line
    values: tuple[str, ...]
    others: list[Stream] = field(default_factory=list)
    differing: set[int] = field(default_factory=set)

    @property
    def prefix(self) -> str:
        """Return who said it: `node1:3`, or `[0-2,5]`, or `node[1-2]`."""
        first = self.line.stream
        if not self.others:
            return first.prefix
        streams = [first, *self.others]
        if first.rank is None:
            return fold_names(dict.fromkeys(stream.host for stream in streams))
        return f"[{fold_numbers(sorted({stream.rank for stream in streams if stream.rank is not None}))}]"

    @property
    def text(self) -> str:
        """Return what they said, with a `*` where they differ."""
        if not self.differing:
            return self.line.text
        literals = _shape(self.line.text, self.line.stream.host)[0].split(_HOLE)
        shown = [
            "*" if place in self.differing and not _IS_TIME.fullmatch(value) else value
            for place, value in enumerate(self.values)
        ]
        return literals[0] + "".join(a + b for a, b in zip(shown, literals[1:], strict=True))

    def take(self, stream: Stream, values: tuple[str, ...]) -> None:
        """Add another one's line."""
        self.others.append(stream)
        if values != self.values:
            pairs = enumerate(zip(self.values, values, strict=True))
            self.differing.update(place for place, (mine, theirs) in pairs if mine != theirs)


class Folder:
    """Holds lines for a moment, to see whether others say the like.

    Attributes:
        window: seconds of `Line.order` for which a line is held.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        self._groups: dict[tuple[str, int, str, int], Folded] = {}
        self._said: dict[tuple[str, int], int] = {}  # how often a stream said it, of what is held

    def add(self, line: Line) -> Iterator[Folded]:
        """Take a line; yield what is no longer held because of it, in order."""
        yield from self.until(line.order - self.window)
        shape, values = _shape(line.text, line.stream.host)
        who = (shape, line.stream.place)
        number = self._said.get(who, 0)  # a rank's second line of that kind is for the second group of them
        self._said[who] = number + 1
        key = (shape, line.stream.attempt, line.stream.kind, number)
        if key in self._groups:
            self._groups[key].take(line.stream, values)
            return
        self._groups[key] = Folded(line, values)
        if len(self._groups) > _MOST:
            yield self._first()

    def until(self, order: float) -> Iterator[Folded]:
        """Yield what began before a moment; `inf` for everything."""
        while self._groups and next(iter(self._groups.values())).line.order < order:
            yield self._first()

    def _first(self) -> Folded:
        key, group = next(iter(self._groups.items()))
        del self._groups[key]
        for stream in (group.line.stream, *group.others):
            if self._said.get((key[0], stream.place)) == key[-1] + 1:
                del self._said[key[0], stream.place]
        return group


def _shape(text: str, host: str) -> tuple[str, tuple[str, ...]]:
    """Return a text with holes where the likes of it may differ, and what was there."""
    return _dug(text, host if host in text else "")


@lru_cache(maxsize=4096)  # ranks of one host say the same one after the other
def _dug(text: str, host: str) -> tuple[str, tuple[str, ...]]:
    values: list[str] = []

    def dig(found: re.Match[str]) -> str:
        values.append(found["number"] or found[0])
        return (found["label"] or "") + _HOLE

    return _variable(host).sub(dig, text.replace(_HOLE, "")), tuple(values)


@lru_cache(maxsize=4096)
def _variable(host: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])|{_NAMES}" if host else _NAMES)
