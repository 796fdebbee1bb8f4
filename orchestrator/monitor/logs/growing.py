"""The logs of one attempt while they grow."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from orchestrator.monitor.logs.merge import merged
from orchestrator.monitor.logs.reader import file_size
from orchestrator.monitor.logs.select import clock_offsets
from orchestrator.monitor.logs.source import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.monitor.logs.search import Search
    from orchestrator.monitor.logs.select import Selection
    from orchestrator.monitor.logs.source import Source
    from orchestrator.rundir import AttemptDir

_BARS_A_SECOND = 2  # states of progress bars that are shown, of all logs together
_BAR_SECONDS = (1.0, 60.0)  # between two of one log: least, and most
_FEW = 64  # logs that are asked for by name, rather than the whole folder
_CLOCK_SECONDS = 5.0  # between looks at what is known of the hosts' clocks


def sizes_in(folder: Path) -> dict[str, int]:
    """Return the sizes of a folder's files by name; nothing where there is no such folder."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries}
    return {}


def has_files(folder: Path) -> bool:
    """Tell whether a folder is there and holds something."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return next(entries, None) is not None
    return False


class Growing:
    """Gives what comes to the logs of an attempt.

    Args:
        attempt: whose logs.
        sources: of all logs that it can have and that are wanted.
    """

    def __init__(self, attempt: AttemptDir, sources: Sequence[Source]) -> None:
        self.attempt = attempt
        self._sources = sources
        self._sizes = {source.stream.place: source.reader.offset for source in sources}
        self._bars: dict[int, float] = {}  # when a log's progress bar was last shown
        self._moved: dict[int, Source] = {}  # logs with a bar that may have to be shown
        self._clocks_read = 0.0

    def pieces(self, search: Search, selection: Selection, *, last: bool) -> Iterator[Piece]:
        """Yield what has come since the last call: by time, as far as hosts have told it already.

        Args:
            search: what is wanted.
            selection: its times.
            last: also lines without an end.
        """
        self._read_clocks()
        sizes = self._look()
        grown = [source for source in self._sources if self._has_news(source, sizes, last=last)]
        yield from merged(grown, search, selection, last=last, now=time.time())

    def bars(self, now: float) -> Iterator[Piece]:
        """Yield the states of bars that have moved: the more there are, the less often each one's."""
        least, most = _BAR_SECONDS
        pause = min(most, max(least, len(self._bars) / _BARS_A_SECOND))
        for place, source in sorted(self._moved.items()):
            if now - self._bars.get(place, 0.0) < pause:
                continue
            del self._moved[place]
            _, *states = source.reader.unfinished().split(b"\r")
            shown = [state for state in states if state.strip()]
            if shown:
                self._bars[place] = now
                yield Piece(now, source.stream.turn, now, source.stream, shown[-1])

    def _has_news(self, source: Source, sizes: dict[str, int], *, last: bool) -> bool:
        place = source.stream.place
        size = sizes.get(source.stream.path.name, 0)
        if size < source.reader.offset:
            source.reader.begin_again()
        grown = size != self._sizes[place]
        self._sizes[place] = size
        if grown:
            self._moved[place] = source
        return grown or (last and size > source.reader.offset)

    def _look(self) -> dict[str, int]:
        if len(self._sources) > _FEW:
            return sizes_in(self.attempt.logs)
        paths = (source.stream.path for source in self._sources)
        return {path.name: file_size(path) for path in paths}

    def _read_clocks(self) -> None:
        if time.monotonic() - self._clocks_read < _CLOCK_SECONDS:
            return
        self._clocks_read = time.monotonic()
        offsets = clock_offsets(self.attempt)
        for source in self._sources:
            source.clock = offsets.get(source.stream.host, 0.0)
