"""What the program will print, collected."""

from __future__ import annotations

import difflib
from typing import Iterable


class Answer:
    """What the installed classes said; its attributes are the keys of the printed object."""

    def __init__(self, deepspeed: str | None, accelerate: str | None) -> None:
        self.deepspeed = deepspeed
        self.accelerate = accelerate
        self.problems: list[dict[str, str | None]] = []
        self.dropped: list[str] = []
        self.meant: dict[str, list[str]] = {}

    def problem(self, what: str, where: str, value: str | None = None, fix: str = "") -> None:
        """Note what was refused, once."""
        problem = {"what": what, "where": where, "value": value, "fix": fix}
        if problem not in self.problems:
            self.problems.append(problem)

    def drop(self, path: str, known: Iterable[str]) -> None:
        """Note a key that nobody reads, and those like it among the ones that are."""
        self.dropped.append(path)
        close = like(path.rsplit(".", 1)[-1], known)
        if close:
            self.meant[path] = close


def like(key: str, known: Iterable[str]) -> list[str]:
    """Return the one or two keys that a mistyped one may have been meant for."""
    return difflib.get_close_matches(key, sorted(known), n=2, cutoff=0.7)


def one_line(words: str) -> str:
    """Return an error's words on one line, without the full stop."""
    return " ".join(words.split())[:300].rstrip(". ")
