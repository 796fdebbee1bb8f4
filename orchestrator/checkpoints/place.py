"""Where the checkpoints lie that a command is about: those of a run, or of any folder."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoints.find import last_complete, tags
from orchestrator.errors import CheckpointError, OrchestratorError, Problem

if TYPE_CHECKING:
    from orchestrator.checkpoints.tag import Tag
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of checkpoints.

    Attributes:
        folder: absolute, links resolved.
        run: the run that was named; None for a plain folder.
        plan: that run's latest plan.
    """

    folder: Path
    run: RunDir | None = None
    plan: LaunchPlan | None = None

    @property
    def what(self) -> str:
        """Return how a message names it."""
        return str(self.folder) if self.run is None else f"{self.folder} (run {self.run.run_id})"


def find_place(word: str, run_root: Path | None = None) -> Place:
    """Return where checkpoints lie.

    Args:
        word: a folder, or what names a run (`registry.find`). A folder of that name goes before a run, unless
            it is a run directory itself.
        run_root: a folder of runs to look in as well.

    Raises:
        RunNotFoundError: it is no folder, and no run has that id.
        CheckpointError: there is no such folder, or the run says nothing of where its script saves.
    """
    path = Path(word).expanduser()
    if path.is_dir() and not (path / "plan.json").is_file():
        return Place(path.resolve())
    if os.sep in word and not path.is_dir():
        what = "it is no folder" if path.exists() else "there is no such folder here"
        raise CheckpointError(Problem(what, "FOLDER", word, "name a folder of checkpoints, or a run"))
    from orchestrator import registry  # noqa: PLC0415 - it needs the plan's classes

    return place_of(registry.find(word, run_root))


def place_of(run: RunDir) -> Place:
    """Return where a run saves.

    Raises:
        CheckpointError: it does not say, or that folder is not here.
    """
    try:
        plan = run.latest_plan()
    except (OSError, ValueError) as error:
        what = f"{run.plan_file} cannot be read: {error}"
        raise CheckpointError(
            Problem(what, "RUN", run.run_id, "name the folder of its checkpoints instead")
        ) from None
    if plan.checkpoint_dir is None:
        what, fix = (
            "its job file does not say where it saves",
            "name the folder, or set train.checkpoint_dir before the next submit",
        )
        raise CheckpointError(Problem(what, "RUN", run.run_id, fix))
    folder = Path(plan.checkpoint_dir)
    if not folder.is_dir():
        fix = "nothing was saved yet, or the folder is on the hosts' own disks: run this command there"
        raise CheckpointError(
            Problem("there is no such folder here", "train.checkpoint_dir", str(folder), fix)
        )
    return Place(folder.resolve(), run, plan)


def choose(place: Place, name: str | None, *, universal: bool = False) -> Tag:
    """Return the tag that is meant; one that is not complete is never returned.

    Args:
        place: where to look.
        name: the tag's name; None for the last complete one.
        universal: see `last_complete`.

    Raises:
        CheckpointError: there is none, it is not complete, or the name is that of several.
    """
    if name is None:
        tag = last_complete(place.folder, universal=universal)
        if tag is not None:
            return tag
    found = tags(place.folder)
    named = found if name is None else [tag for tag in found if name in (tag.name, str(tag.path))]
    if name is None or not named:
        raise CheckpointError(_none(place, name, found))
    if len(named) > 1:
        paths = ", ".join(str(tag.path) for tag in named)
        raise CheckpointError(Problem("several tags have that name", "--tag", name, f"one of: {paths}"))
    if not named[0].complete:
        what = f"{named[0].path} is not complete: {named[0].why}"
        raise CheckpointError(Problem(what, "--tag", name, _others(found)))
    return named[0]


def _none(place: Place, name: str | None, found: list[Tag]) -> Problem:
    if not found:
        return Problem("there is no checkpoint in it", "FOLDER", place.what, "see where the script saves")
    if name is None:
        why = "; ".join(f"{tag.name}: {tag.why}" for tag in found[-3:])
        return Problem(f"no checkpoint in it is complete: {why}", "FOLDER", place.what)
    return Problem("there is no such tag", "--tag", name, _others(found))


def _others(found: list[Tag]) -> str:
    whole = [tag.name for tag in found if tag.complete]
    return f"one of: {', '.join(whole[-8:])}" if whole else "no tag in that folder is complete"


def python_for(place: Place, asked: str | None) -> str:
    """Return the Python that has torch and DeepSpeed.

    Args:
        place: of a run, whose `train.python` is taken; else ours is.
        asked: a command or path that goes before both.

    Raises:
        OrchestratorError: there is no such Python here.
    """
    word = asked or (sys.executable if place.plan is None else place.plan.python)
    program = shutil.which(word)
    if program is None:
        where = "--python" if asked else "train.python"
        fix = "name one that has torch and DeepSpeed with --python"
        raise OrchestratorError(Problem("there is no such Python on this machine", where, word, fix))
    return program
