"""Numbers as a person reads them: bytes, seconds, counts, bars."""

from __future__ import annotations

_DAY, _HOUR, _MINUTE = 86400.0, 3600.0, 60.0
_COUNTS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def memory(size: float) -> str:
    """Return bytes of memory in GiB, as nvidia-smi and DeepSpeed's estimates count them."""
    gib = size / 2**30
    if 0 < gib < 0.01:
        return f"{size / 2**20:.2g} MiB"
    return f"{gib:,.2f} GiB" if gib < 100 else f"{gib:,.0f} GiB"


def volume(size: float) -> str:
    """Return bytes that are sent or stored, in units of 1000 as networks and disks are sold."""
    for scale, unit in ((10**15, "PB"), (10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= scale:
            return f"{size / scale:.3g} {unit}" if size < 999.5 * scale else f"{size / scale:.0f} {unit}"
    return f"{size:.0f} B"


def bandwidth(rate: float) -> str:
    """Return bytes a second as the bits a second that links are named by."""
    bits = rate * 8
    scale, unit = (10**9, "Gbit/s") if bits >= 10**9 else (10**6, "Mbit/s")
    return f"{bits / scale:.4g} {unit}"


def seconds(value: float) -> str:
    """Return a time with two or three figures: 84 ms, 2.19 s, 44 min, 7.9 h, 12 d."""
    if value < 0.9995:
        return f"{value * 1000:.3g} ms"
    if value < 2 * _MINUTE:
        return f"{value:.3g} s"
    for limit, size, unit in ((2 * _HOUR, _MINUTE, "min"), (2 * _DAY, _HOUR, "h")):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    return f"{value / _DAY:,.3g} d" if value < 1000 * _DAY else f"{value / _DAY:,.0f} d"


def count(number: float) -> str:
    """Return a number of parameters: 7.24B, 350M, 1.2k."""
    for scale, unit in _COUNTS:
        if number >= scale:
            shown = number / scale
            return f"{shown:.2f}{unit}" if shown < 100 else f"{shown:.0f}{unit}"
    return str(round(number))


def number(value: int) -> str:
    """Return a whole number with its thousands marked: 80,000."""
    return f"{value:,}"


def bar(part: float, whole: float, width: int = 24) -> str:
    """Return how full something is: `[########--------]`; what does not fit runs over with `!`."""
    if whole <= 0:
        return ""
    filled = round(min(part / whole, 1.0) * width)
    if part > whole:
        return f"[{'#' * (width - 1)}!]"
    return f"[{'#' * filled}{'-' * (width - filled)}]"


def columns(rows: list[list[str]], *, right: frozenset[int] = frozenset(), gap: str = "  ") -> list[str]:
    """Return rows as aligned lines.

    Args:
        rows: cells; rows may be shorter than the longest.
        right: columns that are aligned to the right, for numbers.
        gap: what stands between two columns.
    """
    many = max(map(len, rows), default=0)
    full = [[*row, *[""] * (many - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in full) for i in range(many)]
    return [
        gap.join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in full
    ]


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text in lines of at most `width` characters; the second and later ones are indented.

    Paths and key names are never broken.
    """
    import textwrap  # noqa: PLC0415 - only where there are words to show

    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]
