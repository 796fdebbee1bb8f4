"""How drawn text gets its looks: from outside, so that what is drawn stays plain text."""

from __future__ import annotations

from collections.abc import Callable

Style = Callable[[str, str], str]
"""Called with a text and `title`, `good`, `bad`, `mark` or `dim`; returns the text in that look."""


def plain(text: str, kind: str) -> str:
    """Return the text as it is: the style of a pipe."""
    del kind
    return text
