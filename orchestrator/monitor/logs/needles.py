"""Which texts a line must hold for a regular expression to be found in it.

Searching those first is a hundred times as fast as trying the expression line by line.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST = 8  # needles; with more, looking for each costs more than trying the expression
# With IGNORECASE, Python finds i, k, s in Turkish i's, the Kelvin sign and the long s too.
_FOLDED = frozenset("iIkKsS")
_OTHER_PARSER = (
    ImportError,
    AttributeError,
    TypeError,
    ValueError,
)  # another Python's: lines are tried one by one
_SEES_OTHERS = frozenset(
    (
        "ASSERT",
        "ASSERT_NOT",
        "ATOMIC_GROUP",
        "POSSESSIVE_REPEAT",
        "GROUPREF_EXISTS",
        "AT_BEGINNING_STRING",
        "AT_END_STRING",
    )
)


def needles(pattern: re.Pattern[str]) -> tuple[bytes, ...] | None:
    """Return texts (UTF-8) of which every line that matches has one; lower-case with IGNORECASE.

    Returns:
        None where there are no such texts, or too many of them.
    """
    try:
        found = _of_sequence(_parsed(pattern), ignore_case=bool(pattern.flags & re.IGNORECASE))
    except _OTHER_PARSER:
        return None
    if not found or len(found) > _MOST or not all(found):
        return None
    return tuple(text.encode() for text in sorted(found))


def across_lines(pattern: re.Pattern[str]) -> re.Pattern[str] | None:
    """Return a pattern that, in a text of many lines, finds a match in every line that matches by itself.

    Returns:
        None where what is around a line may keep a match from being found (lookahead, `a*+`).
    """
    try:
        operators = set(_operators(_parsed(pattern)))
    except _OTHER_PARSER:
        return None
    if operators & _SEES_OTHERS:
        return None
    return re.compile(pattern.pattern, pattern.flags | re.MULTILINE)


def _parsed(pattern: re.Pattern[str]) -> Any:
    parser: Any = importlib.import_module("re._parser")  # private; there from Python 3.11 on
    return parser.parse(pattern.pattern, pattern.flags)


def _operators(tree: Any) -> Iterator[str]:
    """Yield the names of all operators and kinds of anchors in a parsed expression."""
    if isinstance(tree, tuple | list) or hasattr(tree, "data"):
        for part in tree:
            yield from _operators(part)
    elif not isinstance(tree, int) or hasattr(tree, "name"):
        yield str(tree)


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
