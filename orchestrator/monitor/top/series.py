"""A value over steps in bounded memory."""

from __future__ import annotations

import bisect
import math

_MOST = 2048  # points: more than the widest terminal shows, few enough to be drawn several times a second


class Series:
    """Points in order of their step; when they become too many, neighbours are replaced by their mean.

    A run that goes on from a checkpoint tells some steps again: what is told later counts.
    """

    def __init__(self) -> None:
        self._steps: list[float] = []
        self._values: list[float] = []
        self._every = 1  # steps told for one that is kept
        self._pending: list[float] = []
        self._points: tuple[tuple[float, float], ...] | None = ()
        self.last: float | None = None

    def add(self, step: float, value: float) -> None:
        """Take one value; NaN and infinities are kept as the last one and leave a gap."""
        self.last = value
        if self._steps and step <= self._steps[-1]:
            self._cut(step)
        if not math.isfinite(value):
            return
        self._pending.append(value)
        if len(self._pending) < self._every:
            return
        self._steps.append(step)
        self._values.append(math.fsum(self._pending) / len(self._pending))
        self._pending.clear()
        self._points = None
        if len(self._steps) > _MOST:
            self._halve()

    def _cut(self, step: float) -> None:
        keep = bisect.bisect_left(self._steps, step)
        del self._steps[keep:], self._values[keep:]
        self._pending.clear()
        self._points = None

    def _halve(self) -> None:
        even = len(self._steps) // 2 * 2
        values = self._values
        self._values = [(values[i] + values[i + 1]) / 2 for i in range(0, even, 2)] + values[even:]
        self._steps = self._steps[1:even:2] + self._steps[even:]
        self._every *= 2

    def points(self) -> tuple[tuple[float, float], ...]:
        """Return (step, value) in order."""
        if self._points is None:
            self._points = tuple(zip(self._steps, self._values, strict=True))
        return self._points
