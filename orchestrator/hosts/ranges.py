"""Host names and slot ids in brackets, both ways: `node[001-128]` to names, names to a nodelist.

Written for the sizes a run can have: 10,000 names fold in some milliseconds whether they are regular or
not, which a set-algebra library does not manage, and names come out in the order they were written,
because the first one becomes the master.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_NAMES = 100_000
"""Most names one range may stand for; more is a slip of the hand and would fill the memory."""

_OUTER_COMMA = re.compile(r",(?![^\[]*\])")
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_PIECE = re.compile(r"([0-9]{1,15})(?:-([0-9]{1,15}))?")
_LAST_NUMBER = re.compile(r"[0-9]+\Z")
_MAX_DIGITS = 15  # Slurm counts in 64 bits; a longer number is a serial number, not a counter


class RangeSyntaxError(ValueError):
    """A range is malformed; the message says what is wrong with it."""


def expand_names(text: str) -> list[str]:
    """Expand every bracket of `text`, the last one running fastest.

    Args:
        text: such as `node[001-128]`, `rack[1-2]-n[1-4].cluster` or a name without brackets.

    Returns:
        The names, in the order written; zeros in front of a number are kept.

    Raises:
        RangeSyntaxError: a bracket has no partner, holds something else than numbers, or the names
            would be more than `MAX_NAMES`.
    """
    parts = _BRACKETS.split(text)
    fixed, bodies = parts[::2], parts[1::2]
    if any("[" in part or "]" in part for part in fixed):
        raise RangeSyntaxError("a bracket has no partner")
    numbers = [expand_numbers(body) for body in bodies]
    total = 1
    for column in numbers:
        total *= len(column)
    if total > MAX_NAMES:
        raise RangeSyntaxError(f"a range of {total} names is more than the {MAX_NAMES} allowed")
    if len(numbers) == 1:
        before, after = fixed
        return [f"{before}{number}{after}" for number in numbers[0]]
    return ["".join(_interleave(fixed, chosen)) for chosen in itertools.product(*numbers)]


def expand_nodelist(text: str) -> list[str]:
    """Expand a node list as Slurm writes it, such as `n[1-3,5],m7`, in its order.

    Raises:
        RangeSyntaxError: as for expand_names.
    """
    return [name for part in _OUTER_COMMA.split(text.strip()) for name in expand_names(part)]


def expand_numbers(body: str) -> list[str]:
    """Expand `001-003,7` to its numbers as text, in the order written.

    Raises:
        RangeSyntaxError: a piece is not N or N-M, runs backwards, or mixes widths (`01-100`).
    """
    numbers: list[str] = []
    for piece in body.split(","):
        numbers += _expand_piece(piece)
        if len(numbers) > MAX_NAMES:
            raise RangeSyntaxError(f"a range of more than {MAX_NAMES} numbers")
    return numbers


def fold_numbers(numbers: Iterable[int]) -> str:
    """Fold ascending numbers: 0, 1, 2, 5 become `0-2,5`."""
    return ",".join(_runs([str(number) for number in numbers]))


def fold_names(names: Iterable[str]) -> str:
    """Fold names to a nodelist that Slurm reads, in time linear in their number.

    Only a number at the very end is folded: Slurm refuses text after a bracket (`n[1-2].cluster` is an
    "Invalid hostlist" to scontrol 22.05), so such names are listed one by one.

    Returns:
        Groups in order of their first name, numbers ascending: `node[1-3,7],login`.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        match = _LAST_NUMBER.search(name)
        if match is None or len(match[0]) > _MAX_DIGITS:
            groups[name + "\0"] = []  # no name holds a NUL: it can't meet the prefix of a group
        else:
            groups.setdefault(name[: match.start()], []).append(match[0])
    return ",".join(_fold_group(prefix, numbers) for prefix, numbers in groups.items())


def _interleave(fixed: list[str], chosen: tuple[str, ...]) -> Iterator[str]:
    for before, number in zip(fixed, chosen, strict=False):
        yield before
        yield number
    yield fixed[-1]


def _expand_piece(piece: str) -> list[str]:
    match = _PIECE.fullmatch(piece)
    if match is None:
        raise RangeSyntaxError(f"{piece!r} is not a number or a range such as 1-4")
    first, last = match[1], match[2]
    if last is None:
        return [first]
    low, high = int(first), int(last)
    if high < low:
        raise RangeSyntaxError(f"the range {piece} runs backwards")
    if high - low >= MAX_NAMES:
        raise RangeSyntaxError(f"the range {piece} is longer than {MAX_NAMES}")
    padded = _is_padded(first) or _is_padded(last)
    if padded and len(first) != len(last):
        raise RangeSyntaxError(f"the ends of {piece} have different widths")
    width = len(first) if padded else 0
    return [f"{number:0{width}d}" for number in range(low, high + 1)]


def _is_padded(number: str) -> bool:
    return len(number) > 1 and number[0] == "0"


def _fold_group(prefix: str, numbers: list[str]) -> str:
    if not numbers:
        return prefix[:-1]
    if len(numbers) == 1:
        return prefix + numbers[0]
    numbers.sort(key=lambda number: (len(number), number))
    return f"{prefix}[{','.join(_runs(numbers))}]"


def _runs(numbers: list[str]) -> Iterator[str]:
    """Yield `N` or `N-M` for every run of successors in `numbers`."""
    start = 0
    for index in range(1, len(numbers) + 1):
        if index < len(numbers) and _goes_on(numbers[start], numbers[index - 1], numbers[index]):
            continue
        first, last = numbers[start], numbers[index - 1]
        yield first if first == last else f"{first}-{last}"
        start = index


def _goes_on(first: str, last: str, number: str) -> bool:
    """Tell whether the run `first-last` takes `number` in: 8-9 takes 10, 08-09 too, 08-99 never 100."""
    if int(number) != int(last) + 1:
        return False
    return len(number) == len(first) or not (_is_padded(first) or _is_padded(number))
