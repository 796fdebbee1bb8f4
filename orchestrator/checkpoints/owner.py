"""Whether a checkpoint is one that a run wrote itself, which is all that may be deleted for it.

No file of a checkpoint says which run wrote it. So a run notes which folders were there before it began
(`checkpoints.json` in its directory). Its own are those that came later, while it ran, while no other run
that is known saved in the same folder, with a number of ranks that fits, and by its user. What is in doubt is
not its own.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoints import deepspeed
from orchestrator.checkpoints.tag import Kind, pruned
from orchestrator.rundir import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.rundir import RunDir

_NOTE = "checkpoints.json"
_DEPTH = 3  # as deep as tags lie (find.py)
_CLOCKS = 60.0  # seconds that the clocks of hosts and of a file server may differ
_NOT_SAVED = "{}: not what a script saves to go on from"
_SAVED = (Kind.DEEPSPEED, Kind.TRAINER, Kind.ACCELERATE, Kind.DISTRIBUTED)


@dataclass(frozen=True, slots=True)
class Rival:
    """Another run that saves in the same folder, and when it ran (epoch seconds)."""

    run_id: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Owner:
    """A run, as what its checkpoints are told by.

    Attributes:
        folder: where it saves, links resolved.
        before: folders below it that were there when the run began, relative; None when nobody noted them.
        started: when it began, epoch seconds.
        ended: when it ended; infinity while it runs.
        worlds: the numbers of ranks of its attempts.
        user: the user id it runs as.
        rivals: other runs.
        promised: names of tags that a run which waits, or has begun, is told to go on from; to its id.
        inherited: of those in `before`, what came while an earlier run of the same training was on.
    """

    folder: Path
    before: frozenset[str] | None
    started: float
    ended: float
    worlds: frozenset[int]
    user: int
    rivals: tuple[Rival, ...]
    promised: dict[str, str] = field(default_factory=dict)
    inherited: frozenset[str] = frozenset()

    def foreign(self, seen: Sighting) -> str:
        """Return why a checkpoint is not this run's; empty for one that is."""
        return next(self._doubts(seen), "")

    def _doubts(self, seen: Sighting) -> Iterator[str]:
        """Yield doubts; those that cost a look into a file come last."""
        if seen.kind not in _SAVED:
            yield _NOT_SAVED.format(seen.kind)
        if link := _through_link(self.folder, seen.path):
            yield link
        if self.before is None:
            yield "nobody noted what was there before the run"
        elif self._was_there(seen, self.before):
            yield "it was there before the run"
        if other := self.promised.get(seen.path.name):
            yield f"the run {other} is to go on from it"
        yield from self._by_time(seen)
        below = seen.path.parent != self.folder and seen.kind is Kind.DEEPSPEED
        if below and not (seen.path.parent / "latest").is_file():
            yield "no `latest` lies beside it, as where DeepSpeed saves"  # somebody copied it there
        yield from self._by_others(seen)

    def _was_there(self, seen: Sighting, before: frozenset[str]) -> bool:
        """Tell whether a tag is an earlier one; what has since been written over as a whole is not."""
        name = str(seen.path.relative_to(self.folder))
        over = name in self.inherited and _oldest(seen) >= self.started
        return name in before and not over

    def link_or_user(self, seen: Sighting) -> str:
        """Return that a link leads to a checkpoint, or that another user wrote it; empty for neither."""
        return _through_link(self.folder, seen.path) or next(self._by_user(seen), "")

    def _by_time(self, seen: Sighting) -> Iterator[str]:
        if seen.modified > self.ended:
            yield "it was written after the run"
        if seen.modified < self.started - _CLOCKS:
            yield "it was written before the run"  # and has got its name since
        oldest = _oldest(seen)
        for rival in self.rivals:
            if rival.ended <= self.started:
                continue  # what it wrote was there before
            if oldest <= rival.ended + _CLOCKS and seen.modified >= rival.started - _CLOCKS:
                when = "at the same time, or within a minute of it"
                yield f"the run {rival.run_id} saved in this folder {when}"

    def _by_user(self, seen: Sighting) -> Iterator[str]:
        with suppress(OSError):
            if seen.path.stat().st_uid != self.user:
                yield "another user wrote it"

    def _by_others(self, seen: Sighting) -> Iterator[str]:
        yield from self._by_user(seen)
        ranks = said_ranks(seen) or 1  # data-parallel; a model-parallel run has several times as many
        if not any(world % ranks == 0 for world in self.worlds):
            yield f"{ranks} data-parallel ranks saved it, which this run never had"


def _oldest(seen: Sighting) -> float:
    return min(place.oldest() for place in (seen.listing, *seen.parts))


def of_deepspeed(folder: Path, seen: Sighting) -> str:
    """Return why a checkpoint in a folder is not one that DeepSpeed wrote; empty for one that is."""
    if link := _through_link(folder, seen.path):
        return link
    if seen.kind is Kind.UNIVERSAL:
        return _NOT_SAVED.format(seen.kind)
    whole = seen.kind is Kind.DEEPSPEED and bool(seen.listing.files)
    within = seen.kind in (Kind.TRAINER, Kind.ACCELERATE) and any(map(deepspeed.is_tag, seen.parts))
    return "" if whole or within else f"{seen.kind}: DeepSpeed did not write it"


def said_ranks(seen: Sighting) -> int | None:
    """Return the number of data-parallel ranks that one of DeepSpeed's files tells; None when none does."""
    for place in (seen.listing, *seen.parts):
        if deepspeed.is_tag(place):
            return deepspeed.ranks_of(place)
    return None


def note_before(run: RunDir, folder: Path) -> None:
    """Note which folders are there before a run begins; a run that has begun notes nothing more."""
    note = run.path / _NOTE
    if note.exists():
        return
    there = sorted(_folders(folder, "", 1))
    with suppress(OSError):  # without the note nothing will be deleted
        write_json(note, {"folder": str(folder), "before": there})


def note_renamed(run: RunDir, old: str, new: str) -> None:
    """Note that a folder which was there before a run has another name now: what gets its old one is new."""
    note = read_json(run.path / _NOTE)
    if note is None or old not in note["before"]:
        return
    kept = [name for name in note["before"] if name != old and not name.startswith(f"{old}/")]
    with suppress(OSError):  # else the new one counts as foreign, and stays
        write_json(run.path / _NOTE, {**note, "before": sorted([*kept, new])})


def noted_before(run: RunDir) -> frozenset[str] | None:
    """Return the folders that were there when a run began, relative; None when nobody noted them."""
    before = (read_json(run.path / _NOTE) or {}).get("before")
    return None if before is None else frozenset(before)


def owner_of(run: RunDir, folder: Path, runs: Iterable[RunDir]) -> Owner:
    """Return a run as the owner of its checkpoints.

    Args:
        run: the run.
        folder: where it saves, links resolved.
        runs: all runs that are known, this one among them or not.
    """
    runs = list(runs)
    verdict = run.verdict()
    started = run.record().get("started")
    return Owner(
        folder=folder,
        before=noted_before(run),
        started=math.inf if started is None else float(started),
        ended=math.inf if verdict is None else float(verdict.get("ended", 0.0)),
        worlds=frozenset(_worlds(run)),
        user=run.path.stat().st_uid,
        rivals=tuple(_rivals(run, folder, runs)),
        promised=dict(_promised(run, folder, runs)),
    )


def _folders(folder: Path, above: str, depth: int) -> Iterator[str]:
    """Yield the folders below one. Their files are not looked at: there may be thousands, on a slow disk."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not pruned(entry.name)]
    except OSError:
        return
    for name in names:
        yield above + name
        if depth < _DEPTH:
            yield from _folders(folder / name, f"{above}{name}/", depth + 1)


def _worlds(run: RunDir) -> Iterator[int]:
    for attempt in (None, *run.attempts()):
        with suppress(OSError, ValueError):
            yield run.plan(attempt).world_size


def _rivals(run: RunDir, folder: Path, runs: Iterable[RunDir]) -> Iterator[Rival]:
    for other in runs:
        started = other.record().get("started")
        if other.path == run.path or started is None or not saves_in(other, folder):
            continue
        yield Rival(other.run_id, float(started), _end_of(other))


def _promised(run: RunDir, folder: Path, runs: Iterable[RunDir]) -> Iterator[tuple[str, str]]:
    for other in runs:
        if other.path == run.path or other.verdict() is not None or not saves_in(other, folder):
            continue
        if told := other.plan().resume_tag:
            yield told, other.run_id


def saves_in(run: RunDir, folder: Path) -> bool:
    """Return whether a run saves in a folder, above it or below it."""
    try:
        saved = run.plan().checkpoint_dir
    except (OSError, ValueError):
        return False
    if saved is None:
        return False
    other = Path(saved).resolve()
    return other == folder or folder in other.parents or other in folder.parents


def _end_of(run: RunDir) -> float:
    verdict = run.verdict()
    if verdict is not None:
        return float(verdict.get("ended", math.inf))
    from orchestrator.monitor.status import current_status  # noqa: PLC0415 - few runs share a folder

    if not current_status(run)["state"].is_final:
        return math.inf
    with suppress(OSError):
        return run.events_file.stat().st_mtime
    return math.inf


def _through_link(folder: Path, path: Path) -> str:
    """Return that a path leads through a link below a folder; empty when it does not."""
    below = [path, *path.parents][: len(path.relative_to(folder).parts)]
    return "a link leads to it" if any(each.is_symlink() for each in below) else ""
