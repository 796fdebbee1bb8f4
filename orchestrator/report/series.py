"""Series of any length in little memory: thinned so that no peak and no dip is lost, or gathered in bins."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

POINTS = 480  # of a series that is drawn: more than a plot has columns to show
_SMOOTH = 120  # stretches whose means are drawn over a series that has more points than that
_HELD = 16384  # points held before a series is thinned


def thin(values: Sequence[float], limit: int) -> list[int]:
    """Return which points of a series to keep, at most about `limit`: of each stretch its extremes.

    The first and the last stay too, and of each stretch one that is no number, so that NaN is seen.
    """
    if len(values) <= limit:
        return list(range(len(values)))
    stretches = max(limit // 3, 1)
    kept = {0, len(values) - 1}
    for i in range(stretches):
        start, end = i * len(values) // stretches, (i + 1) * len(values) // stretches
        numbers = [j for j in range(start, end) if math.isfinite(values[j])]
        if numbers:
            kept |= {min(numbers, key=values.__getitem__), max(numbers, key=values.__getitem__)}
        if len(numbers) < end - start:
            kept.add(next(j for j in range(start, end) if not math.isfinite(values[j])))
    return sorted(kept)


class Curve:
    """One value over steps and time, from whoever tells it; a rank with a lower number takes over.

    Attributes:
        rank: whose values these are.
    """

    def __init__(self, limit: int = _HELD) -> None:
        self.rank: int | None = None
        self._limit = limit
        self._attempts, self._steps = array("i"), array("d")
        self._times, self._values = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._values)

    def add(self, record: dict[str, Any], value: float) -> None:
        """Add what a `step` record told."""
        rank = int(record.get("rank", 0))
        if self.rank is None or rank < self.rank:
            self.rank = rank
            self._keep([])
        if rank != self.rank:
            return
        self._attempts.append(int(record.get("attempt", 1)))
        self._steps.append(float(record.get("step", math.nan)))
        self._times.append(float(record["time"]))
        self._values.append(value)
        if len(self._values) >= self._limit:
            self._keep(thin(self._values, self._limit // 2))

    def _keep(self, places: list[int]) -> None:
        for name in ("_attempts", "_steps", "_times", "_values"):
            held = getattr(self, name)
            setattr(self, name, array(held.typecode, (held[i] for i in places)))

    @property
    def last(self) -> float | str | None:
        """Return the last value, as records have it: what is no number is a text, such as "NaN"."""
        if not self._values:
            return None
        value = self._values[-1]
        if math.isnan(value):
            return "NaN"
        return _plain(value) if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"

    def to_json(self) -> dict[str, Any]:
        """Return `rank`, the thinned `attempt`, `step`, `time` and `value`, and `smooth`: the same, as means.

        What is no number is None; a series of few points has no `smooth`.
        """
        places = thin(self._values, POINTS)
        found: dict[str, Any] = {"rank": self.rank}
        found |= {name: [_plain(of[i]) for i in places] for name, of in self._columns().items()}
        return found | ({"smooth": self._smooth()} if len(self._values) > _SMOOTH else {})

    def _columns(self) -> dict[str, array[Any]]:
        return {"attempt": self._attempts, "step": self._steps, "time": self._times, "value": self._values}

    def _smooth(self) -> dict[str, list[float | int | None]]:
        """Return the means of stretches, none of which spans two attempts."""
        size = math.ceil(len(self._values) / _SMOOTH)
        stretches: list[list[int]] = []
        for i, value in enumerate(self._values):
            if not math.isfinite(value):
                continue
            last = stretches[-1] if stretches else []
            if not last or len(last) >= size or self._attempts[last[0]] != self._attempts[i]:
                stretches.append([])
            stretches[-1].append(i)
        return {
            name: [_plain(sum(of[i] for i in part) / len(part)) for part in stretches]
            for name, of in self._columns().items()
        }


class Tally:
    """How many values there were, their sum, the lowest and the highest; made for millions of them."""

    __slots__ = ("count", "high", "low", "total")

    def __init__(self) -> None:
        self.count, self.total, self.low, self.high = 0, 0.0, math.inf, -math.inf

    def add(self, value: float) -> None:
        """Add a value that is a number."""
        self.count += 1
        self.total += value
        if value < self.low:  # noqa: PLR1730 - min() and max() cost thrice as much
            self.low = value
        if value > self.high:  # noqa: PLR1730 - as above
            self.high = value

    @property
    def mean(self) -> float:
        """Return the mean; there is one value at least."""
        return self.total / self.count


class Band:
    """Lowest, mean and highest of many values in each bin of time.

    Args:
        start: epoch seconds of the first bin's beginning.
        end: epoch seconds of the last bin's end; what comes later is put there.
        bins: how many.
    """

    def __init__(self, start: float, end: float, bins: int = 240) -> None:
        self._start = start
        self._width = max((end - start) / bins, 1e-9)
        self._bins: list[Tally | None] = [None] * bins

    def add(self, time: float, value: float) -> None:
        """Add one value; a value that is no number is left out."""
        if not math.isfinite(value):
            return
        i = min(max(int((time - self._start) / self._width), 0), len(self._bins) - 1)
        tally = self._bins[i]
        if tally is None:
            tally = self._bins[i] = Tally()
        tally.add(value)

    def to_json(self) -> dict[str, list[float | None]]:
        """Return `time` (middle of each bin that has values), `low`, `mean` and `high`."""
        full = [(i, tally) for i, tally in enumerate(self._bins) if tally is not None]
        return {
            "time": [_plain(self._start + (i + 0.5) * self._width) for i, _ in full],
            "low": [_plain(tally.low) for _, tally in full],
            "mean": [_plain(tally.mean) for _, tally in full],
            "high": [_plain(tally.high) for _, tally in full],
        }


def number(value: Any) -> float | None:
    """Return a number of a record, also one that JSON has no word for ("NaN"); None for anything else."""
    if type(value) is float or type(value) is int:  # nearly all of them: bool is none of both
        return value
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _plain(value: float) -> float | int | None:
    """Return a number as JSON should hold it: short, whole where it is, None where it is none."""
    if not math.isfinite(value):
        return None
    if value == int(value):
        return int(value)
    return round(value, 3) if abs(value) >= 1e6 else float(f"{value:.6g}")
