"""Which checkpoints stay and which may go: a decision about values, no file is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import SUFFIX, Kind, aside, before_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.plan import KeepPlan

_NUMBER = re.compile(r"\d+")
NEWEST = "the newest complete one"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to become of one checkpoint.

    Attributes:
        seen: the checkpoint.
        goes: whether it is to be deleted.
        why: why it stays; empty for one that goes.
        counts: whether it is one of those that the numbers of `KeepPlan` ask for.
    """

    seen: Sighting
    goes: bool
    why: str
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What the decision asks about a checkpoint; it asks as little as it can, since each costs many files.

    Attributes:
        foreign: why a checkpoint is not ours to delete; empty for one that is.
        complete: whether it is complete.
        metric: its metric's value; None when nothing tells it.
        guarded: why a checkpoint stays whatever the numbers say, by its folder.
    """

    foreign: Callable[[Sighting], str]
    complete: Callable[[Sighting], bool]
    metric: Callable[[Sighting], float | None]
    guarded: Mapping[Path, str]


def decide(found: Sequence[Sighting], keep: KeepPlan, newest: Sighting | None, look: Look) -> list[Choice]:
    """Decide on the checkpoints of one folder.

    Args:
        found: all of them, newest last.
        keep: how many stay.
        newest: the newest complete one, ours or not; without one nothing goes.
        look: what is known about each.

    Returns:
        A choice for each, in the same order. Only complete ones count as kept. What is older than the last
        that counts goes, whether it is complete or not: an incomplete one is what a killed save left. Nothing
        goes that was written after the newest complete one, however it is named: it may be a save under way.
        Nor does anything whose name differs in more than numbers: `best`, or a copy that somebody made. Nor
        anything where the best are asked for and nobody tells the metric: a typing error in its name would
        cost the best one.

        What was set aside (aside.py) may be among the best, never among the last, and goes with its age. A
        universal form goes with its tag, or after it.
    """
    foreign = {one.path: look.foreign(one) or _fixed(one) for one in found}
    mine = _series([one for one in found if not foreign[one.path]], look, foreign)
    last = _last([one for one in mine if _saved(one)], keep.last, look)
    best = _best([one for one in mine if one.kind is not Kind.UNIVERSAL], keep, look)
    unknown = f"no complete checkpoint tells {keep.metric}" if keep.best and not best else ""

    def choice(one: Sighting) -> Choice:
        if why := foreign[one.path]:
            return Choice(one, goes=False, why=why)
        if one in best:
            return Choice(one, goes=False, why=f"among the best {keep.best} by {keep.metric}", counts=True)
        if one in last:
            return Choice(one, goes=False, why=f"among the last {keep.last}", counts=True)
        why = _why_stays(one, found, newest, look) or _too_few(one, found, last, keep.last) or unknown
        return Choice(one, goes=not why, why=why)

    return _with_their_tags([choice(one) for one in found])


def _with_their_tags(choices: list[Choice]) -> list[Choice]:
    stay = {each.seen.path: each for each in choices if not each.goes}

    def also(one: Choice) -> Choice:
        tag = stay.get(one.seen.path.with_name(one.seen.path.name.removesuffix(SUFFIX)))
        if one.seen.kind is not Kind.UNIVERSAL or not one.goes or tag is None:
            return one
        return Choice(one.seen, goes=False, why=f"{tag.seen.path.name} stays")

    return [also(each) for each in choices]


def _saved(one: Sighting) -> bool:
    """Return whether a script saved a checkpoint, and no run has gone back to before it."""
    return one.kind is not Kind.UNIVERSAL and not aside(one.path.name)


def _fixed(one: Sighting) -> str:
    return "" if _NUMBER.search(one.path.name) else "its name has no number"


def _series(mine: list[Sighting], look: Look, foreign: dict[Path, str]) -> list[Sighting]:
    """Return those that are named as the newest complete one is; say of the others that they are not."""
    newest = next((one for one in reversed(mine) if _saved(one) and look.complete(one)), None)
    if newest is None:
        return mine
    shape = _NUMBER.sub("#", newest.path.name)
    others = [one for one in mine if _NUMBER.sub("#", _own_name(one)) != shape]
    foreign.update({one.path: f"it is not named as {newest.path.name} is" for one in others})
    return [one for one in mine if one not in others]


def _own_name(one: Sighting) -> str:
    """Return a name without what we have added to it."""
    return before_aside(one.path.name.removesuffix(SUFFIX) if one.kind is Kind.UNIVERSAL else one.path.name)


def _last(mine: list[Sighting], number: int, look: Look) -> list[Sighting]:
    last: list[Sighting] = []
    for one in reversed(mine):
        if len(last) < number and look.complete(one):
            last.append(one)
    return last


def _best(mine: list[Sighting], keep: KeepPlan, look: Look) -> list[Sighting]:
    """Return the best ones; of two equal ones the newer is better."""
    if not keep.best or keep.metric is None:
        return []
    sign = 1 if keep.lowest else -1
    known = [(value, place) for place, one in enumerate(mine) if (value := look.metric(one)) is not None]
    best: list[Sighting] = []
    for _, place in sorted(known, key=lambda each: (sign * each[0], -each[1])):
        if len(best) < keep.best and look.complete(mine[place]):
            best.append(mine[place])
    return best


def _why_stays(one: Sighting, found: Sequence[Sighting], newest: Sighting | None, look: Look) -> str:
    if newest is None:
        return "no checkpoint is complete"
    if one.path == newest.path:
        return NEWEST
    if one.modified > newest.modified or _comes_after(one, newest, found):
        return f"newer than {newest.path.name}, {NEWEST}"
    return look.guarded.get(one.path.resolve(), "")


def _comes_after(one: Sighting, newest: Sighting, found: Sequence[Sighting]) -> bool:
    paths = [each.path for each in found]
    return newest.path in paths and paths.index(one.path) > paths.index(newest.path)


def _too_few(one: Sighting, found: Sequence[Sighting], last: list[Sighting], number: int) -> str:
    if len(last) < number:
        return f"fewer than {number} are complete"
    return (
        "" if found.index(one) < found.index(last[-1]) else f"newer than {last[-1].path.name}, which is kept"
    )
