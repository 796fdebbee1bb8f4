"""Sizes, counts and bandwidths as people write them: 80 GiB, 7B parameters, 100 Gbit/s."""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:e([+-]?\d+))?\s*([A-Za-z/]*)\Z", re.IGNORECASE)
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_BYTES = "expected a size: a number of bytes, 80GB or 80GiB"
_COUNT = "expected a count: a number, 350M, 7B or 1.5T"
_BANDWIDTH = "expected a bandwidth with its unit: 100Gbit/s or 12.5GB/s"
_LEAST = 10**6  # bytes/s; a smaller number without a unit was meant as Gbit/s or GB/s


def parse_bytes(value: Any) -> int:
    """Return a size in bytes.

    Args:
        value: a number of bytes, or a text with a unit: `80GB` is 80e9, `80GiB` 80 * 2**30; `80G` is `80GB`.

    Raises:
        ValueError: it is none of these, or not positive.
    """
    number, unit = _split(value, _BYTES)
    unit = unit.lower().removesuffix("b")
    return _whole(number, {**_PREFIXES, **_BINARY}.get(unit), _BYTES)


def parse_count(value: Any) -> int:
    """Return a number of things (parameters).

    Args:
        value: a whole number, or a text such as `350M`, `7B`, `1.5T`.

    Raises:
        ValueError: it is none of these, or not positive.
    """
    number, unit = _split(value, _COUNT)
    return _whole(number, _COUNTS.get(unit.lower()), _COUNT)


def parse_count_or_none(value: Any) -> int:
    """Return a number of things as `parse_count` does; it may be 0.

    Raises:
        ValueError: as there.
    """
    return 0 if value == 0 and not isinstance(value, bool) else parse_count(value)


def parse_bandwidth(value: Any) -> float:
    """Return a bandwidth in bytes per second, of one direction.

    Args:
        value: a number of bytes per second, or a text: `100Gbit/s`, `100Gbps`, `12.5GB/s`, `3GiB/s`.

    Raises:
        ValueError: it is none of these, or not positive.
    """
    number, unit = _split(value, _BANDWIDTH)
    word = re.sub(r"(/s|ps)\Z", "", unit)
    factor = 1.0
    if word.lower().endswith("bit") or (unit.endswith("bps") and word.endswith("b")):
        factor, word = 1 / 8, re.sub(r"(bit|b)\Z", "", word, flags=re.IGNORECASE)
    elif word.endswith("B"):
        word = word[:-1]
    elif word:
        raise ValueError(_BANDWIDTH)  # "100G" may be bits or bytes
    scale = {**_PREFIXES, **_BINARY}.get(word.lower())
    if scale is None or number <= 0 or (not unit and number < _LEAST):
        raise ValueError(_BANDWIDTH)
    return number * factor * scale


def _split(value: Any, expected: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)  # noqa: TRY004 - pydantic reports ValueError with the place
    match = _NUMBER.match(str(value).strip().replace("_", ""))
    if match is None:
        raise ValueError(expected)
    number, exponent, unit = match.groups()
    return float(number) * 10.0 ** int(exponent or 0), unit


def _whole(number: float, scale: int | None, expected: str) -> int:
    if scale is None or not math.isfinite(number * scale) or round(number * scale) < 1:
        raise ValueError(expected)
    return round(number * scale)
