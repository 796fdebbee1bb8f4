"""Lines that tell of steps, as records of the rank that wrote them.

Not every line becomes a record. Of up to EAGER ranks, and of the lowest rank that tells of steps, all
lines do, but no more than _MOST of a chunk (64 KiB, or half a second): evenly spread ones. Of the other
ranks one line is read every `ranks / _A_SECOND` seconds each, so that the records of 8,000 ranks that all
print every step do not fill a disk. What is left out is still in the logs.

A loss without a step (Hugging Face's Trainer, whose bar goes to stderr and whose losses go to stdout) gets
the one at which the bar stood when the line came. Times are known to a quarter of a second, in which a fast
bar counts some steps; within that doubt the line's own epoch decides. A line without a step that comes before
any step was told of, such as DeepSpeed's wall clock, is left out: nobody knows where it belongs.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.collector.parse import Told, has_needle, parse

if TYPE_CHECKING:
    from collections.abc import Iterable

EAGER = 8  # ranks
_A_SECOND = 50  # records of all the other ranks together
_MOST = 100
_TRIES = 4  # lines that are read for one that tells something
_BAR_PAUSE = 1.0  # seconds between two records of a bar that has no figures behind it
_BARS = 400  # states of a bar that are kept: more than come with one look at the files
_DOUBT = 0.5  # seconds by which a line and the bar's state may be apart though their times are equal
_ENDS = re.compile(rb"[\r\n]+")


class Bar(NamedTuple):
    """A state of a progress bar: when it was written, how far it was, where it ends, seconds for each."""

    when: float
    step: int
    total: int
    rate: float | None


@dataclass(slots=True)
class Teller:
    """What a rank has told so far.

    Attributes:
        step: the last step it told; -1 before the first.
        step_time: the last time of a step it told, seconds.
        total: where its progress bar of steps ends; None before one is known to be one.
        seen: the last states of a bar, whatever it counts.
        barred: when a bar alone became a record, epoch seconds.
        due: when a line of it is read again, epoch seconds.
    """

    step: int = -1
    step_time: float | None = None
    total: int | None = None
    seen: deque[Bar] = field(default_factory=lambda: deque(maxlen=_BARS))
    barred: float = 0.0
    due: float = 0.0

    def take(self, told: Told, now: float) -> tuple[int, dict[str, float]] | None:
        """Return step and values as a record has them; None when they make none.

        A bar counts something unknown until a loss has come with it or behind it: it may be one over files.

        Args:
            told: what a line told.
            now: when, epoch seconds.
        """
        values = dict(told.values)
        if told.total is not None:
            return self._bar(told.step or 0, told.total, values, now)
        step = told.step
        if step is None:
            step = self._bars_step(values, now)
        if step < 0:
            return None
        self.step = max(self.step, step) if told.step is None else step
        self.step_time = values.get("step_time", self.step_time)
        return step, values

    def _bars_step(self, values: dict[str, float], now: float) -> int:
        """Return the step of a line without one: where the bar stood then, or the last one told."""
        if not self.seen:
            return self.step
        if "loss" in values:
            self.total = self.seen[-1].total
        if self.seen[-1].total != self.total:
            return self.step
        bar = next((bar for bar in reversed(self.seen) if bar.when <= now), self.seen[0])
        if "loss" in values and bar.rate is not None:
            values.setdefault("step_time", bar.rate)
        return by_epoch(bar, values.get("epoch"))

    def _bar(
        self, step: int, total: int, values: dict[str, float], now: float
    ) -> tuple[int, dict[str, float]] | None:
        has_loss = "loss" in values
        if has_loss:
            self.total = total
        if total == self.total or self.total is None:
            if self.seen and (self.seen[-1].total != total or self.seen[-1].step > step):
                self.seen.clear()
            self.seen.append(Bar(now, step, total, values.get("step_time")))
        if total != self.total or step <= self.step or (not has_loss and now - self.barred < _BAR_PAUSE):
            return None
        self.step, self.barred = step, now
        self.step_time = values.get("step_time", self.step_time)
        return step, values


def by_epoch(bar: Bar, epoch: float | None) -> int:
    """Return the step of a line of Hugging Face's Trainer that came when the bar stood so.

    Its epoch is the share of all steps that are done, times the number of epochs, which is most often whole
    (`max_steps` may end a run in the midst of one). What it says counts if the bar may have stood there.

    Args:
        bar: the state of the bar at that time.
        epoch: what the line says; None for a line that says none.
    """
    epochs = round(bar.total * epoch / bar.step) if epoch and bar.step else 0
    if not epoch or not epochs or bar.rate is None:
        return bar.step
    step = int(bar.total * epoch / epochs + 0.25)  # the last batches of an epoch may be a short step
    near = abs(step - bar.step) <= 1 + _DOUBT / max(bar.rate, 1e-6)
    return step if near else bar.step


@dataclass(slots=True)
class Line:
    """A line that may tell of a step, and where it ends in its chunk."""

    text: bytes
    end: int


def candidates(data: bytes) -> list[Line]:
    """Return the lines of a chunk that have a needle; none when the chunk has none."""
    if not has_needle(data):
        return []
    found, start = [], 0
    for match in _ENDS.finditer(data):
        text = data[start : match.start()]
        if has_needle(text):
            found.append(Line(text, match.end()))
        start = match.end()
    if start < len(data) and has_needle(data[start:]):
        found.append(Line(data[start:], len(data)))
    return found


def spread(lines: list[Line], most: int) -> list[Line]:
    """Return at most `most` of the lines, evenly spread, the last one among them."""
    every = -(-len(lines) // most)
    return lines[::-1][::every][::-1] if every > 1 else lines


def _read(lines: list[Line]) -> list[tuple[Told, int]]:
    return [(told, line.end) for line in lines if (told := parse(line.text)) is not None]


@dataclass
class Tellers:
    """All ranks that tell of steps.

    Args:
        ranks: how many ranks the run has.
    """

    ranks: int
    known: dict[int, Teller] = field(default_factory=dict)
    lowest: int | None = None

    def wanted(self, rank: int, data: bytes, now: float) -> list[tuple[Told, int]]:
        """Return what lines of a chunk tell, each with the offset of its end in the chunk.

        Args:
            rank: who wrote it.
            data: whole lines.
            now: epoch seconds.
        """
        if self.ranks <= EAGER or rank in {0, self.lowest}:
            return _read(spread(candidates(data), _MOST))
        teller = self._teller(rank, now)
        if now < teller.due or not (lines := candidates(data)):
            return []
        teller.due = now + self.ranks / _A_SECOND
        return _read(lines[-_TRIES:])[-1:]

    def _teller(self, rank: int, now: float) -> Teller:
        """Return what is known of a rank; ranks are not all due at the same moment."""
        if rank not in self.known:
            self.known[rank] = Teller(due=now + rank / _A_SECOND)
        return self.known[rank]

    def records(
        self, rank: int, found: Iterable[tuple[Told, float]], base: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return records of what a rank's lines tell.

        Args:
            rank: who wrote them.
            found: what each tells, and when (epoch seconds of the supervisor's clock).
            base: what all its records have in common.
        """
        teller, records = self._teller(rank, 0.0), []
        for told, when in found:
            taken = teller.take(told, when)
            if taken is None:
                continue
            step, values = taken
            records.append(
                {"time": round(when, 3), **base, "kind": "step", "rank": rank, "step": step, **values}
            )
            if self.lowest is None or rank < self.lowest:
                self.lowest = rank
        return records
