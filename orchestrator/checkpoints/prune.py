"""Delete the checkpoints that are not to be kept: find, decide, delete."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.checkpoints.deepspeed import written
from orchestrator.checkpoints.find import sightings
from orchestrator.checkpoints.keep import Choice, Look, decide
from orchestrator.checkpoints.metric import best_of_trainer, metric_of
from orchestrator.checkpoints.remove import finish, remove
from orchestrator.checkpoints.tag import SUFFIX, Kind, aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.plan import KeepPlan


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came of a deletion.

    Attributes:
        choices: what was decided, oldest first, folder by folder.
        failed: why a checkpoint that goes is still there, or not gone altogether, by its folder.
        leftovers: what earlier deletions left and cannot be deleted now.
    """

    choices: tuple[Choice, ...]
    failed: dict[Path, str]
    leftovers: tuple[str, ...] = ()

    @property
    def gone(self) -> list[Sighting]:
        """Return what was deleted; when nothing was to be done, what would be."""
        return [each.seen for each in self.choices if each.goes and each.seen.path not in self.failed]


class Terms(NamedTuple):
    """How many stay, why a checkpoint is not ours to delete, and what is held whatever the numbers say."""

    keep: KeepPlan
    foreign: Callable[[Sighting], str]
    held: dict[Path, str]


class Examined:
    """Looks into each checkpoint once: it may have thousands of files."""

    def __init__(self) -> None:
        self._known: dict[Path, bool] = {}

    def complete(self, seen: Sighting) -> bool:
        """Return whether a checkpoint is complete."""
        if seen.path not in self._known:
            self._known[seen.path] = seen.examine().complete
        return self._known[seen.path]


def prune(
    folder: Path,
    keep: KeepPlan,
    foreign: Callable[[Sighting], str],
    *,
    needed: str = "",
    dry_run: bool = False,
) -> Pruned:
    """Delete what is not to be kept; in each folder that holds checkpoints, so many stay.

    Args:
        folder: where a run saves, links resolved.
        keep: what stays.
        foreign: why a checkpoint is not ours to delete; empty for one that is.
        needed: name of a tag that stays in any case: the run that is on goes on from it.
        dry_run: decide, and delete nothing.
    """
    found = sightings(folder)
    names = (needed, needed + SUFFIX)
    held = {one.path.resolve(): "the run goes on from it" for one in found if one.path.name in names}
    choices = tuple(_choices(folder, found, Terms(keep, foreign, held)))
    if dry_run:
        return Pruned(choices, {})
    leftovers = finish(one.path.parent for one in found)
    tried = {each.seen.path: remove(each.seen) for each in choices if each.goes}
    return Pruned(choices, {path: why for path, why in tried.items() if why}, tuple(leftovers))


def _choices(folder: Path, found: list[Sighting], terms: Terms) -> Iterator[Choice]:
    keep, examined = terms.keep, Examined()
    guarded = terms.held | dict(_guarded(folder, found))
    by_parent: dict[Path, list[Sighting]] = defaultdict(list)
    for one in found:
        by_parent[one.path.parent].append(one)
    for group in by_parent.values():
        look = Look(terms.foreign, examined.complete, lambda one: metric_of(one, keep.metric or ""), guarded)
        yield from decide(group, keep, newest_of(group, examined), look)


def settled(folder: Path) -> bool:
    """Return whether the newest checkpoint of a folder is complete, so that no save seems to be under way."""
    saved = [one for one in sightings(folder) if _saved(one)]
    return bool(saved) and saved[-1].examine().complete


def newest_of(found: list[Sighting], examined: Examined) -> Sighting | None:
    """Return the newest complete one that a run can go on from, which has not been set aside for it."""
    return next((one for one in reversed(found) if _saved(one) and examined.complete(one)), None)


def _saved(one: Sighting) -> bool:
    """Return whether a script saved a checkpoint to go on from: neither exported, converted nor set aside."""
    return one.kind not in (Kind.WEIGHTS, Kind.UNIVERSAL) and not aside(one.path.name)


def _guarded(folder: Path, found: Iterable[Sighting]) -> Iterator[tuple[Path, str]]:
    """Yield the folders that something points to, and what does."""
    found = list(found)
    for parent in sorted({folder, *(one.path.parent for one in found)}):
        named = written(parent).tag
        if named:
            yield (parent / named).resolve(), "`latest` names it"
        yield from _linked(parent)
    for one in found:
        best = best_of_trainer(one)
        if best:
            yield one.path.parent.resolve() / best, f"Trainer's best model by {one.path.name}"


def _linked(parent: Path) -> Iterator[tuple[Path, str]]:
    """Yield what links in a folder lead to, and every folder above it, up to that folder."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.is_symlink():
                continue
            target = Path(entry.path).resolve()
            for each in (target, *target.parents):
                if each == parent:
                    break
                yield each, f"the link {entry.name} leads to it"
