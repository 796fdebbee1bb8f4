"""Which texts a line must hold for a regular expression to be found in it.

Searching those first is a hundred times as fast as trying the expression line by line.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 8  # needles; with more, looking for each costs more than trying the expression
# With IGNORECASE, Python finds i, k, s in Turkish i's, the Kelvin sign and the long s too.
_FOLDED = frozenset("iIkKsS")


def needles(pattern: re.Pattern[str]) -> tuple[bytes, ...] | None:
    """Return texts (UTF-8) of which every line that matches has one; lower-case with IGNORECASE.

    Returns:
        None where there are no such texts, or too many of them.
    """
    try:
        parser: Any = importlib.import_module("re._parser")  # private: sre_parse before Python 3.11
        tree = parser.parse(pattern.pattern, pattern.flags)
        found = _of_sequence(tree, ignore_case=bool(pattern.flags & re.IGNORECASE))
    except (ImportError, AttributeError, TypeError, ValueError):
        return None  # another Python's parser: lines are tried one by one
    if not found or len(found) > _MOST or not all(found):
        return None
    return tuple(text.encode() for text in sorted(found))


def _of_sequence(tree: Iterable[Any], *, ignore_case: bool) -> set[str]:
    """Return the best choice of a sequence, all of whose parts must match; empty: none."""
    choices: list[set[str]] = []
    run = ""
    for operator, argument in tree:
        name = str(operator)
        if name == "LITERAL" and _is_sure(chr(argument), ignore_case=ignore_case):
            run += chr(argument).lower() if ignore_case else chr(argument)
            continue
        if name == "AT":
            continue  # takes no room
        choices.append({run})
        run = ""
        choices.append(_of_part(name, argument, ignore_case=ignore_case))
    return max([*choices, {run}], key=_worth)


def _of_part(name: str, argument: Any, *, ignore_case: bool) -> set[str]:
    if name == "SUBPATTERN" and not argument[1] and not argument[2]:  # no flags of its own
        return _of_sequence(argument[3], ignore_case=ignore_case)
    if name == "BRANCH":
        branches = [_of_sequence(branch, ignore_case=ignore_case) for branch in argument[1]]
        return set().union(*branches) if all(map(_worth, branches)) else set()
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT") and argument[0] > 0:
        return _of_sequence(argument[2], ignore_case=ignore_case)
    if name == "ATOMIC_GROUP":
        return _of_sequence(argument, ignore_case=ignore_case)
    return set()


def _worth(texts: set[str]) -> int:
    """Return the length of the shortest text; 0 for no choice."""
    return min(map(len, texts), default=0)


def _is_sure(letter: str, *, ignore_case: bool) -> bool:
    """Tell whether a letter is found in the bytes as it is in the text that is made of them."""
    if ignore_case:
        return letter.isascii() and letter not in _FOLDED
    return letter != "\N{REPLACEMENT CHARACTER}" and not "\ud800" <= letter <= "\udfff"
