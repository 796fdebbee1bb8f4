"""Sets of ranks on the command line."""

from __future__ import annotations

import re

import click


def rank_set(text: str | None, option: str = "--rank") -> frozenset[int] | None:
    """Read `0,8-15`; None for no text.

    Raises:
        BadParameter: it is no set of ranks.
    """
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if high < low:
            raise click.BadParameter(f"{text!r} is no set of ranks such as 0,8-15", param_hint=option)
        found.update(range(low, high + 1))
    return frozenset(found)
