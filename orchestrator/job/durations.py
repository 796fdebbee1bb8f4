"""Durations as people and schedulers write them."""

from __future__ import annotations

import math
import re
from typing import Any

_UNITS = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?\Z"
)
_CLOCK = re.compile(r"(?:(?P<d>\d+)-)?(?P<h>\d+):(?P<m>[0-5]?\d):(?P<s>[0-5]?\d)\Z")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_EXPECTED = "expected a duration: seconds, 2h30m, HH:MM:SS or D-HH:MM:SS"


def parse_duration(value: Any) -> float:
    """Return a duration in seconds.

    Args:
        value: a number of seconds, or a text: `90`, `90s`, `2h30m`, `1d`, `HH:MM:SS`, `D-HH:MM:SS`.

    Raises:
        ValueError: it is none of these, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(_EXPECTED)  # noqa: TRY004 - pydantic reports ValueError with the place
    seconds = _from_text(value) if isinstance(value, str) else float(value)
    if not math.isfinite(seconds):
        raise ValueError(_EXPECTED)
    return seconds


def _from_text(text: str) -> float:
    compact = "".join(text.split()).lower()
    match = _CLOCK.match(compact) or _UNITS.match(compact)
    if compact and match:
        return sum(float(number) * _SECONDS[unit] for unit, number in match.groupdict(default="0").items())
    if re.match(r"\d+:\d+\Z", compact):
        raise ValueError(f"{_EXPECTED}; {text} may mean hours or minutes")
    try:
        return float(compact)
    except ValueError:
        raise ValueError(_EXPECTED) from None
