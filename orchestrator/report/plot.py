"""A plot as a template draws it: paths in a box of 1000 by 1000, ticks in percent.

The box is stretched to whatever width a screen has; words beside it are text of the page, and stay as large
as all its text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.report.units import elapsed, ticks, time_ticks, value_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LOG_FROM = 30.0  # times that the largest value is above the smallest for a plot by decades
_MARGIN = 0.06  # of the range, free above and below

Number = float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot; a y of None, or a break in `apart`, interrupts it.

    Attributes:
        style: class of the path.
        apart: to which of several pieces each point belongs, such as its attempt.
        silent: a pointer does not read it.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    style: str = "c0"
    apart: Sequence[Any] = ()
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Ribbon:
    """The space between the lowest and the highest of many values."""

    x: Sequence[Number]
    low: Sequence[Number]
    high: Sequence[Number]
    style: str = "c0"


@dataclass(frozen=True, slots=True)
class Plot:
    """What is to be drawn.

    Attributes:
        unit: of y: `seconds`, `bytes`, `bytes_per_second`, `share`, `celsius`, `watts`, or "" for numbers.
        across: what x is: `step`, or `time` in seconds since submit.
        floor: the lowest y to show in any case, such as 0.
        span: the x to show, if not those there are.
    """

    title: str
    lines: Sequence[Line]
    ribbons: Sequence[Ribbon] = ()
    unit: str = ""
    across: str = "step"
    floor: float | None = None
    note: str = ""
    span: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return where in the range a value is: 0 to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A plot that is ready for the template; positions of ticks are percent from the left and the bottom."""

    title: str
    note: str
    across: str
    words: str
    paths: list[dict[str, str]]
    names: list[dict[str, str]]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    hover: dict[str, Any] = field(repr=False)


def draw(plot: Plot) -> Drawn | None:
    """Return the plot with everything placed; None where there is nothing to draw."""
    values = [y for y in _all_y(plot) if y is not None and math.isfinite(y)]
    places = [x for line in plot.lines for x in line.x if x is not None]
    if not values or not places:
        return None
    across = _Scale(
        *(plot.span or (min(places), max(places) if max(places) > min(places) else min(places) + 1))
    )
    up = _up(values, plot.floor)
    paths = [{"d": _area(r, across, up), "style": f"ribbon {r.style}"} for r in plot.ribbons]
    paths += [{"d": _path(one, across, up), "style": one.style} for one in plot.lines]
    log = ["by decades"] if up.log else []
    return Drawn(
        title=plot.title,
        note=", ".join([*filter(None, [plot.note]), *log]),
        across="step" if plot.across == "step" else "time since submit",
        words=_words(plot, values),
        paths=[path for path in paths if path["d"]],
        names=[{"name": one.name, "style": one.style} for one in plot.lines if one.name],
        x_ticks=_x_ticks(plot.across, across),
        y_ticks=[
            (round(100 * up.at(value), 2), value_words(value, plot.unit))
            for value in _y_values(up, plot.unit)
        ],
        hover=_hover(plot, across, up),
    )


def _all_y(plot: Plot) -> Iterator[Number]:
    for line in plot.lines:
        yield from line.y
    for ribbon in plot.ribbons:
        yield from ribbon.low
        yield from ribbon.high


def _up(values: Sequence[float], floor: float | None) -> _Scale:
    low, high = min(values), max(values)
    if floor is None and low > 0 and high / low > _LOG_FROM:
        return _Scale(low / 1.15, high * 1.15, log=True)
    low = low if floor is None else min(low, floor)
    span = high - low or abs(high) or 1.0
    bottom = low if floor is not None and low == floor else low - _MARGIN * span
    return _Scale(bottom, high + _MARGIN * span)


def _y_values(up: _Scale, unit: str) -> list[float]:
    if not up.log:
        return ticks(up.low, up.high, 5, binary=unit == "bytes")
    first, last = math.ceil(math.log10(up.low)), math.floor(math.log10(up.high))
    every = max((last - first) // 4, 1)
    decades = [10.0**power for power in range(first, last + 1, every)]
    return decades if len(decades) > 1 else ticks(up.low, up.high, 4)


def _x_ticks(kind: str, across: _Scale) -> list[tuple[float, str]]:
    values = time_ticks(across.high, across.low) if kind == "time" else ticks(across.low, across.high, 5)
    words = (
        elapsed
        if kind == "time"
        else (lambda value: f"{value:,.0f}" if value == int(value) else f"{value:g}")
    )
    inside = [value for value in values if across.low <= value <= across.high]
    return [(round(100 * across.at(value), 2), words(value)) for value in inside]


def _point(x: float, y: float, across: _Scale, up: _Scale) -> str:
    return f"{1000 * across.at(x):.4g} {1000 - 1000 * up.at(y):.4g}"


def _path(line: Line, across: _Scale, up: _Scale) -> str:
    found, pen, before = [], "M", None
    for i, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        piece = line.apart[i] if line.apart else None
        pen = "M" if piece != before else pen
        before = piece
        if x is None or y is None or (up.log and y <= 0):
            pen = "M"
            continue
        found.append(pen + _point(x, y, across, up))
        pen = "L"
    return _with_dots(found)


def _with_dots(found: list[str]) -> str:
    """Return the path; a point that no other follows gets a line of no length, which round caps show."""
    ended = [
        i for i, one in enumerate(found) if one[0] == "M" and (i + 1 == len(found) or found[i + 1][0] == "M")
    ]
    for i in ended:
        found[i] += "h0"
    return "".join(found)


def _area(ribbon: Ribbon, across: _Scale, up: _Scale) -> str:
    rows = [
        (x, low, high)
        for x, low, high in zip(ribbon.x, ribbon.low, ribbon.high, strict=True)
        if x is not None and low is not None and high is not None and (low > 0 or not up.log)
    ]
    if len(rows) < 2 or all(low == high for _, low, high in rows):
        return ""
    there = [_point(x, high, across, up) for x, _, high in rows]
    back = [_point(x, low, across, up) for x, low, _ in reversed(rows)]
    return f"M{'L'.join([*there, *back])}Z"


def _words(plot: Plot, values: Sequence[float]) -> str:
    low, high = (value_words(value, plot.unit) for value in (min(values), max(values)))
    return f"{plot.title}: between {low} and {high}"


def _hover(plot: Plot, across: _Scale, up: _Scale) -> dict[str, Any]:
    """Return what a pointer over the plot reads: position, x and y of every point."""
    lines = []
    for line in plot.lines:
        if line.silent:
            continue
        rows = [
            (round(1000 * across.at(x)), x if plot.across == "step" else round(x, 1), y)
            for x, y in zip(line.x, line.y, strict=True)
            if x is not None and y is not None
        ]
        columns: Iterable[list[Any]] = ([row[i] for row in rows] for i in range(3))
        lines.append({"name": line.name, **dict(zip("pxy", columns, strict=True))})
    return {
        "unit": plot.unit,
        "across": plot.across,
        "lines": lines,
        "log": up.log,
        "range": [up.low, up.high],
    }
