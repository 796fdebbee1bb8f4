"""Numbers with what they count, as every message has them."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 host`, `10,000 hosts`.

    Args:
        number: how many.
        noun: in the singular; the plural is made with an s.
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
