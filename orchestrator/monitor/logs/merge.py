"""Many logs as one, by time; where each begins to be of interest is found without reading what is before."""

from __future__ import annotations

import heapq
import itertools
import math
import os
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.monitor.logs.index import BackwardIndex, first_line_since, last_time, size_before
from orchestrator.monitor.logs.reader import blocks_backwards, file_size, last_line_end
from orchestrator.monitor.logs.source import Piece, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from orchestrator.monitor.logs.search import Search
    from orchestrator.monitor.logs.select import Selection, Stream

_MEMORY = 1 << 26  # bytes for blocks of all logs together
_THREADS = 8
_LARGEST, _SMALLEST = 1 << 17, 1 << 12


def sources_of(streams: Sequence[Stream]) -> list[Source]:
    """Return readers of some logs that together hold no more than some 100 MB."""
    chunk = min(_LARGEST, max(_SMALLEST, _MEMORY // max(1, len(streams))))
    return [Source(stream, chunk) for stream in streams]


def merged(
    sources: Iterable[Source],
    search: Search,
    selection: Selection,
    *,
    last: bool,
    now: float | None = None,
) -> Iterator[Piece]:
    """Yield what has been written to some logs, by time; see Source.pieces for the arguments."""
    sources = list(sources)
    if search.passes_over and len(sources) > 1 and now is None:
        _pass_over(sources, search)
    pieces = (_bounded(source.pieces(search, last=last, now=now), selection) for source in sources)
    return heapq.merge(*pieces)


def _pass_over(sources: Sequence[Source], search: Search) -> None:
    """Let each log go to its first line that may be wanted: the first of all is among those.

    Threads do this side by side, since what they wait for is the disk, or the C library's search.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - most looks need no threads

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        paths = [source.reader.path for source in sources]
        offsets = [source.reader.offset for source in sources]
        for source, offset in zip(sources, pool.map(search.pass_over, paths, offsets), strict=True):
            source.reader.offset = offset


def _bounded(pieces: Iterator[Piece], selection: Selection) -> Iterator[Piece]:
    for piece in pieces:
        if selection.until is not None and piece.order > selection.until:
            return
        if selection.since is None or piece.time is None or piece.time >= selection.since:
            yield piece


def begin(sources: Sequence[Source], search: Search, selection: Selection, *, whole: bool) -> None:
    """Let every source begin at the first line that is wanted of it.

    Args:
        sources: with nothing read yet.
        search: what is wanted.
        selection: its `since` and `tail` are looked at here. Of a log whose host has told no times, the last
            `tail` lines are wanted, whatever other logs hold.
        whole: lines without an end are not counted: they are shown when they have one.
    """
    if selection.since is not None:
        _begin_since(sources, selection.since, whole=whole)
    if selection.tail is not None:
        timed = [source for source in sources if file_size(source.stream.index)]
        others = [[source] for source in sources if not file_size(source.stream.index)]
        for group in (timed, *others):
            _begin_with_last(group, search, selection, whole=whole)


def _begin_since(sources: Sequence[Source], since: float, *, whole: bool) -> None:
    known: dict[Path, tuple[float | None, int]] = {}  # a list's last time, and where in it `since` is
    for source in sources:
        stream = source.stream
        moment = since + source.clock
        if stream.index not in known:
            known[stream.index] = last_time(stream.index), first_line_since(stream.index, moment)
        told, line = known[stream.index]
        source.index.start_at(line)
        size = size_before(stream.index, stream.name, line)
        if (told is None or told < moment) and _written(stream.path) < since:
            # Nothing tells the times of its end, but all of it is older.
            source.reader.offset = _end(stream.path, whole=whole)
        else:
            source.reader.offset = _line_at(stream.path, size)


def _end(path: Path, *, whole: bool) -> int:
    return last_line_end(path) if whole else file_size(path)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _line_at(path: Path, offset: int) -> int:
    """Return the beginning of the line of which a log's byte at `offset` is part."""
    for start, block in blocks_backwards(path, offset, _SMALLEST):
        return start + block.rfind(b"\n") + 1
    return 0


class _Found(NamedTuple):
    """A line, met from the end on, and where in the list of times to go on from it."""

    order: float
    turn: int
    start: int
    list_at: int
    source: Source


def _begin_with_last(sources: Sequence[Source], search: Search, selection: Selection, *, whole: bool) -> None:
    lines = []
    for source in sources:
        path, earliest = source.stream.path, source.reader.offset
        end = _end(path, whole=whole)
        source.reader.offset = max(earliest, end)
        lines.append(_backwards(source, range(earliest, end), search, selection))
    merged_lines = heapq.merge(*lines, key=_by_time, reverse=True)
    for found in itertools.islice(merged_lines, selection.tail):
        found.source.reader.offset = found.start
        found.source.index.start_at(found.list_at)


def _by_time(found: _Found) -> tuple[float, int]:
    return found.order, found.turn


def _backwards(source: Source, span: range, search: Search, selection: Selection) -> Iterator[_Found]:
    """Yield the lines that are wanted of a log, the last first."""
    stream = source.stream
    index = BackwardIndex(stream.index, stream.name)
    order, untimed = math.inf, source.untimed_order()
    for start, end in _lines_backwards(stream.path, span, search):
        told = index.at(end)
        order = min(order, untimed if told is None else told - source.clock)
        if selection.since is not None and told is not None and order < selection.since:
            return
        if selection.until is None or order <= selection.until:
            turn = stream.place if order == -math.inf else stream.turn
            yield _Found(order, turn, start, index.offset, source)


def _lines_backwards(path: Path, span: range, search: Search) -> Iterator[tuple[int, int]]:
    """Yield begin and end of the lines that are wanted in a part of a file, the last first."""
    for offset, block in blocks_backwards(path, span.stop, _SMALLEST):
        for start, end in search.lines_backwards(block):
            if offset + start < span.start:
                return
            yield offset + start, offset + end
