"""The last lines of one host: its own log and those of its ranks, by the times at which they came."""

from __future__ import annotations

import bisect
import contextlib
import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.monitor.top.snapshot import HostView

_BACK = 32 << 10  # bytes before a file's end that are read first
_MOST = 1000  # lines kept
_LONGEST = 4096  # bytes of a line that are shown
_CHUNK = 1 << 20
_ENDS = re.compile(rb"\r\n|\r|\n")
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a host.

    Attributes:
        time: epoch seconds of our clock; None where nobody noted it.
        source: `log`, `3.out` or `3.err`.
    """

    time: float | None
    source: str
    text: str


@dataclass
class _File:
    """One growing file; `times` are (size, epoch seconds) in the order of sizes, from HOST.times."""

    path: Path
    source: str
    offset: int | None = None
    rest: bytes = b""
    skip: bool = False
    times: list[tuple[int, float]] = field(default_factory=list)

    def new(self) -> Iterator[LogLine]:
        """Yield the lines that came since the last time; of a long file the last ones only."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            if self.offset is None:
                self.offset = max(0, size - _BACK)
                self.skip = self.offset > 0
            if size - self.offset > _CHUNK:  # more than anybody reads between two looks
                self.offset, self.rest, self.skip = size - _CHUNK, b"", True
            file.seek(self.offset)
            data = file.read(_CHUNK)
        start = self.offset - len(self.rest)
        self.offset += len(data)
        yield from self._lines(self.rest + data, start)

    def _lines(self, data: bytes, start: int) -> Iterator[LogLine]:
        at = 0
        for end in _ENDS.finditer(data):
            if end.end() == len(data) and end[0] == b"\r":
                break  # perhaps the half of a line's end
            line, at = data[at : end.start()], end.end()
            if self.skip:
                self.skip = False
            elif line.strip():
                yield LogLine(self._time(start + at), self.source, readable(line))
        self.rest = data[at:][-_LONGEST:]

    def _time(self, end: int) -> float | None:
        """Return when the byte before `end` came: with the first size that is not smaller."""
        place = bisect.bisect_left(self.times, (end, 0.0))
        return self.times[place][1] if place < len(self.times) else None


class HostLog:
    """The logs of one host in one attempt.

    Args:
        logs: the attempt's folder of logs.
        host: whose.
        offset: its clock minus ours, seconds.
    """

    def __init__(self, logs: Path, host: HostView, offset: float = 0.0) -> None:
        self.name = host.name
        self._offset = offset
        self._times_file = _File(logs / f"{host.file_name}.times", "times")
        self._files = {"log": _File(logs / f"{host.file_name}.log", "log")}
        for rank in host.ranks:
            for end in ("out", "err"):
                path = logs / f"{host.file_name}.rank{rank}.{end}"
                self._files[f"{rank}.{end}"] = _File(path, f"{rank}.{end}")
        self._lines: deque[LogLine] = deque(maxlen=_MOST)

    def look(self, now: float) -> tuple[LogLine, ...]:
        """Return the last lines, oldest first; those that came since the last look are sorted by time.

        Args:
            now: epoch seconds, for lines whose time nobody has noted yet.

        Raises:
            OSError: a file cannot be read; one that is not there yet has no lines.
        """
        with contextlib.suppress(FileNotFoundError):
            self._read_times()
        found: list[LogLine] = []
        for file in self._files.values():
            with contextlib.suppress(FileNotFoundError):
                found += file.new()
        if self._lines:  # they came just now, and their times perhaps a little later
            found = [line if line.time else replace(line, time=now) for line in found]
        last = float("inf")
        found.sort(key=lambda line: last if line.time is None else line.time)
        self._lines.extend(found)
        return tuple(self._lines)

    def _read_times(self) -> None:
        for line in self._times_file.new():
            when, _, rest = line.text.partition(" ")
            name, _, size = rest.partition(" ")
            file = self._files.get(name)
            with contextlib.suppress(ValueError):
                if file is not None:
                    file.times.append((int(size), float(when) - self._offset))
                    del file.times[:-_MOST]


def readable(line: bytes) -> str:
    """Return a line as text for the screen: without ANSI codes, control characters, and cut."""
    text = _ANSI.sub("", line[:_LONGEST].decode("utf-8", "replace")).expandtabs(8)
    return "".join(sign if sign.isprintable() else "�" for sign in text)
