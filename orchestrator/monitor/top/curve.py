"""Curves of braille dots: two columns and four rows of them in every character."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.monitor.top.words import short_number

if TYPE_CHECKING:
    from collections.abc import Sequence

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode's U+2800 block: [row][column]
_LABEL = 7  # characters left of the curve


def draw_curve(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """Return a curve with its axes as lines of `width` characters.

    Args:
        points: (step, value) in order of the steps, all finite.
        width: characters, labels included.
        height: lines; the last one names the first and the last step.
    """
    inner, rows = width - _LABEL, height - 1
    if inner < 2 or rows < 1 or not points:
        return [" " * width] * height
    values = [value for _, value in points]
    low, high = _bounds(min(values), max(values))
    body = _braille(_columns(points, inner * 2), inner, rows, low, high)
    labels = [""] * rows
    labels[0] = short_number(high)
    if rows > 1:
        labels[-1] = short_number(low)
    lines = [f"{label:>{_LABEL - 1}.{_LABEL - 1}} {line}" for label, line in zip(labels, body, strict=True)]
    return [*lines, " " * _LABEL + _axis(points[0][0], points[-1][0], inner)]


def _bounds(low: float, high: float) -> tuple[float, float]:
    """Return the range to show; a value that never changes is drawn in the middle of one."""
    if high > low:
        return low, high
    margin = abs(low) * 0.1 or 1.0
    return low - margin, high + margin


def _axis(first: float, last: float, width: int) -> str:
    left, right = f"step {first:g}", f"{last:g}"
    if len(left) + len(right) + 1 > width:
        return right.rjust(width)[:width]
    return left + right.rjust(width - len(left))


def _columns(points: Sequence[tuple[float, float]], count: int) -> list[float | None]:
    """Return the mean value in each of `count` columns of steps; None where there is no point."""
    first, last = points[0][0], points[-1][0]
    span = (last - first) or 1.0
    sums, numbers = [0.0] * count, [0] * count
    for step, value in points:
        column = min(count - 1, int((step - first) / span * (count - 1) + 0.5))
        sums[column] += value
        numbers[column] += 1
    return [total / number if number else None for total, number in zip(sums, numbers, strict=True)]


def _braille(columns: list[float | None], width: int, rows: int, low: float, high: float) -> list[str]:
    cells = [[0x2800] * width for _ in range(rows)]
    bottom = rows * 4 - 1
    before: tuple[int, int] | None = None
    for x, value in enumerate(columns):
        if value is None:
            continue
        y = round((high - value) / (high - low) * bottom)
        for dot_x, dot_y in _line(before or (x, y), (x, y)):
            cells[dot_y // 4][dot_x // 2] |= _DOTS[dot_y % 4][dot_x % 2]
        before = (x, y)
    return ["".join(map(chr, line)) for line in cells]


def _line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots between two, both included: as many as the longer side."""
    across, down = end[0] - start[0], end[1] - start[1]
    steps = max(abs(across), abs(down), 1)
    return [
        (start[0] + round(across * i / steps), start[1] + round(down * i / steps)) for i in range(steps + 1)
    ]
