"""Ticks of axes, and values as they are written beside them."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_TIMES = (
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(days * _DAY for days in (1, 2, 5, 10, 30)),
)
_SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def ticks(low: float, high: float, many: int, *, binary: bool = False) -> list[float]:
    """Return round numbers in a range, about as many as asked for.

    Args:
        low: the range's beginning.
        high: its end.
        many: how many ticks.
        binary: of powers of two, as memory is counted.
    """
    if not high > low:
        return [low]
    base = (
        1024.0 ** max(math.floor(math.log(max(abs(low), abs(high)), 1024)), 0) if binary and high > 0 else 1.0
    )
    rough = (high - low) / base / max(many, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999) * base
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first
    return [round((first + i) * step, 12) for i in range(count + 1)]


def time_ticks(end: float, start: float = 0.0) -> list[float]:
    """Return about four round times (seconds) in a range."""
    step = next((t for t in _TIMES if (end - start) / t <= 4.5), (end - start) / 4 or 1.0)
    first = math.ceil(start / step - 1e-9)
    return [(first + i) * step for i in range(math.floor(end / step + 1e-9) - first + 1)]


def elapsed(seconds: float) -> str:
    """Return a time since a beginning, with the two units that matter: 42 s, 3 min, 1 h 30, 2 d 4 h."""
    if seconds < 1 and seconds:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes:02}" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {whole % 60} s" if whole % 60 else f"{minutes} min"
    return f"{whole} s"


def lasted(seconds: float) -> str:
    """Return how long something took, as elapsed does, with the unit of minutes: 1 h 30 min."""
    words = elapsed(max(seconds, 0.0))
    return f"{words} min" if " h " in words and " d " not in words else words


def clock(when: float | None, *, short: bool = False) -> str:
    """Return a time (epoch seconds) of the zone of whoever asks; "" for none."""
    if when is None:
        return ""
    return time.strftime("%H:%M:%S" if short else "%Y-%m-%d %H:%M:%S %Z", time.localtime(when))


def value_words(value: float | str | None, unit: str = "") -> str:
    """Return a value as it is written beside a plot or in a table; "" for none, a text as it is.

    Args:
        value: the value.
        unit: `seconds`, `bytes`, `bytes_per_second`, `share`, `celsius`, `watts`, or "" for a number.
    """
    if value is None or isinstance(value, str):
        return value or ""
    return _WORDS.get(unit, _number)(value)


def _seconds(value: float) -> str:
    if value and abs(value) < 0.9995:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 2 * _MINUTE else lasted(value)


def _binary(value: float) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if abs(value) >= 1024**power:
            return f"{value / 1024**power:.3g} {unit}"
    return f"{value:.0f} B"


def _decimal(value: float) -> str:
    for size, letter in _SIZES:
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g} "


def _number(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e15):
        mantissa, _, power = f"{value:.3g}".partition("e") if value < 1e-4 else f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"


_WORDS: dict[str, Callable[[float], str]] = {
    "seconds": _seconds,
    "bytes": _binary,
    "bytes_per_second": lambda value: f"{_decimal(value)}B/s",
    "share": lambda value: f"{100 * value:.3g} %",
    "celsius": lambda value: f"{value:.0f} °C",
    "watts": lambda value: f"{value:.0f} W",
}
