"""A run, and those it goes on from: together they own what each of them saved, and what was made for them.

`orchestrate resume` goes on in a new run with the same folder. Who asks for the last three checkpoints means
three of the training, not three more of every run.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.checkpoints.owner import Owner, owner_of, saves_in
from orchestrator.checkpoints.tag import MARK, SUFFIX, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Lineage:
    """Owners of one training, the run itself first.

    Attributes:
        owners: they.
        run_ids: their ids.
        needed: name of the tag that the run goes on from, as long as it has no verdict; else empty.
    """

    owners: tuple[Owner, ...]
    run_ids: frozenset[str]
    needed: str

    def foreign(self, seen: Sighting) -> str:
        """Return why a checkpoint is none of these runs'; empty for one that is."""
        if seen.kind is Kind.UNIVERSAL:
            return self._foreign_conversion(seen)
        doubts = [owner.foreign(seen) for owner in self.owners]
        return "" if "" in doubts else doubts[0]

    def _foreign_conversion(self, seen: Sighting) -> str:
        """Only what was converted for a run is its own: by hand, somebody wanted it."""
        own = self.owners[0]
        tag = seen.path.name.removesuffix(SUFFIX)
        said = made_for(seen.path)
        if said.get("for") not in self.run_ids or said.get("of") != tag:
            return f"{seen.kind}: it was not made for this run"
        if other := own.promised.get(tag) or own.promised.get(seen.path.name):
            return f"the run {other} is to go on from it"
        return own.link_or_user(seen)


def made_for(path: Path) -> dict[str, object]:
    """Return what we noted in a universal checkpoint that we made: of which tag, for which run."""
    with suppress(OSError, ValueError):
        said = json.loads((path / MARK).read_text(encoding="utf-8"))
        return said if isinstance(said, dict) else {}
    return {}


def lineage_of(run: RunDir, folder: Path, runs: Iterable[RunDir]) -> Lineage:
    """Return a run and its forerunners as the owners of their checkpoints.

    Args:
        run: the run.
        folder: where it saves, links resolved.
        runs: all runs that are known; a forerunner that is not among them owns nothing any more.
    """
    runs = [each for each in runs if saves_in(each, folder)]  # once: of thousands of runs few do
    line = [run, *_forerunners(run, folder, runs)]
    kin = frozenset(each.run_id for each in line)
    others = [each for each in runs if each.run_id not in kin]
    owners = [owner_of(each, folder, others) for each in line]
    ends = [math.inf, *(owner.started for owner in owners)]
    first = owners[-1].before
    related = (_related(owner, first, end) for owner, end in zip(owners, ends, strict=False))
    needed = run.plan().resume_tag if run.verdict() is None else None
    return Lineage(tuple(related), kin, needed or "")


def _related(owner: Owner, first: frozenset[str] | None, end: float) -> Owner:
    """Return an owner that knows its line.

    Args:
        owner: one of a line.
        first: what was there before the first of them; None when nobody noted it.
        end: when the next of them began, epoch seconds.
    """
    since: frozenset[str] = frozenset()
    if first is not None and owner.before is not None:
        since = owner.before - first
    return replace(owner, inherited=since, ended=min(owner.ended, end))


def _forerunners(run: RunDir, folder: Path, runs: list[RunDir]) -> list[RunDir]:
    """Return the runs that a run goes on from, in the same folder, the latest first."""
    known = {each.run_id: each for each in runs}
    found: list[RunDir] = []
    while (before := known.pop(str(run.record().get("resumes")), None)) is not None:
        if not _saved_there(before, folder):
            break
        found.append(before)
        run = before
    return found


def _saved_there(run: RunDir, folder: Path) -> bool:
    try:
        saved = run.plan().checkpoint_dir
    except (OSError, ValueError):
        return False
    return saved is not None and os.path.realpath(saved) == str(folder)
