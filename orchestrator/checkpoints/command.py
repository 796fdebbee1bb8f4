"""What `checkpoint prune` does: whose checkpoints they are, and how many of them stay."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.checkpoints.find import sightings
from orchestrator.checkpoints.lineage import lineage_of
from orchestrator.checkpoints.owner import of_deepspeed
from orchestrator.checkpoints.prune import Pruned, prune
from orchestrator.errors import CheckpointError, Problem
from orchestrator.plan import KeepPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.checkpoints.place import Place
    from orchestrator.rundir import RunDir


def keep_from(
    place: Place, *, last: int | None, best: int | None, metric: str | None, best_is: str | None
) -> KeepPlan:
    """Return what stays: as the command line says, else as the run's job file does.

    Raises:
        CheckpointError: neither says it, or `best` comes without `metric` or the other way round.
    """
    if last is None and best is None and metric is None and best_is is None:
        if place.plan is None or place.plan.keep is None:
            whose = "a folder has" if place.run is None else "its job file has"
            what = f"{whose} no numbers of its own, so --keep-last must be given"
            raise CheckpointError(Problem(what, fix="add --keep-last 3, or as many as are to stay"))
        return place.plan.keep
    if best_is is not None and metric is None:
        what = "--best-is says nothing without --metric and --keep-best"
        raise CheckpointError(Problem(what, fix="add them, or leave it out"))
    if (metric is None) != (not best):
        missing = "--metric" if metric is None else "--keep-best"
        what = "--keep-best and --metric need each other"
        raise CheckpointError(Problem(what, fix=f"add {missing}, or leave out the other"))
    return KeepPlan(last or 1, best or 0, metric, lowest=best_is != "highest")


def prune_place(place: Place, keep: KeepPlan, run_root: Path | None, *, dry_run: bool) -> Pruned:
    """Delete what is not to be kept.

    Args:
        place: of a run, whose own checkpoints alone may go, or a folder, of which DeepSpeed's may.
        keep: what stays.
        run_root: a folder of runs to look in as well, for others that save in the same place.
        dry_run: decide, and delete nothing.

    Raises:
        CheckpointError: the checkpoints of a plain folder lie in several folders.
    """
    if place.run is not None:
        line = lineage_of(place.run, place.folder, known_runs(run_root))
        return prune(place.folder, keep, line.foreign, needed=line.needed, dry_run=dry_run)
    _must_be_one(place)
    return prune(place.folder, keep, partial(of_deepspeed, place.folder), dry_run=dry_run)


def known_runs(run_root: Path | None) -> Iterator[RunDir]:
    """Yield every run that is known, those of sweeps among them."""
    from orchestrator import registry  # noqa: PLC0415 - it reads a home folder

    yield from registry.all_runs(run_root, tidy=False)  # a supervisor asks, too, on a compute host
    for sweep in registry.all_sweeps(run_root, tidy=False):
        yield from (run for _, run in sweep.points())


def _must_be_one(place: Place) -> None:
    """Refuse a folder of several runs: to keep the last 3 would mean of each, or of all, who knows."""
    parents = sorted({str(seen.path.parent) for seen in sightings(place.folder)})
    if len(parents) > 1:
        what = f"its checkpoints lie in {len(parents)} folders"
        shown = ", ".join(parents[:5])
        raise CheckpointError(Problem(what, "FOLDER", str(place.folder), f"name one of them: {shown}"))
