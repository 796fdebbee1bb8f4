"""Which attempt a supervisor drives: the next one, or one whose supervisor is gone."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.errors import CheckpointError, Problem
from orchestrator.rundir import read_json, write_json, write_text
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.checkpoints import Tag
    from orchestrator.checkpoints.universal import Start
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir
    from orchestrator.supervisor.scheduler import Scheduler

CLOCK_SECONDS = 60.0
"""How far the clock of a file server may be behind ours."""
_UNTOLD = "the hosts were taken away without notice, and the run was queued again"


class Placed(NamedTuple):
    """An attempt on its hosts.

    Attributes:
        plan: its plan.
        start: the checkpoint it goes on from, as what; None for one that begins anew or was begun already.
    """

    plan: LaunchPlan
    start: Start | None


def first_attempt(run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler) -> int:
    """Return the attempt to begin with; one that was cut off gets its verdict.

    With hosts that never change that is the last one, whose agents may still be there. Hosts that were
    taken away have none: what was begun on them is over.
    """
    attempts = run_dir.attempts()
    if not attempts:
        return 1
    last = attempts[-1]
    if plan.slurm is None or not last.plan_file.exists() or _began_with(last) == scheduler.key:
        return last.number
    last.control_file.unlink(missing_ok=True)
    if not last.verdict_file.exists():
        cut_off = {"run_id": plan.run_id, "state": State.PREEMPTED, "summary": _UNTOLD, "ended": time.time()}
        with contextlib.suppress(OSError):
            write_json(last.verdict_file, cut_off)
    return last.number + 1


def _began_with(attempt: AttemptDir) -> str | None:
    """Return the key of the hosts on which an attempt's agents still run; None when there are none."""
    control = read_json(attempt.control_file)
    return None if control is None else str(control.get("hosts_key"))


def place_attempt(run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler, number: int) -> Placed:
    """Return the plan of an attempt on its hosts, and the checkpoint that its ranks go on from.

    Raises:
        JobFileError: the job does not fit the hosts that were given.
        CheckpointError: the newest checkpoint is none that these ranks can load.
    """
    here = run_dir.attempt(number)
    if here.control_file.exists():
        return Placed(run_dir.plan(here), None)
    placed = scheduler.place(run_dir, plan)
    tag = tag_to_resume(run_dir, plan, number)
    if tag is None:
        return Placed(replace(placed, resume_tag=None), None)
    from orchestrator.checkpoints.universal import start_from, with_loading  # noqa: PLC0415 - few runs resume

    start = start_from(tag, placed.deepspeed, placed.world_size)
    config = placed.deepspeed
    if config is not None:
        config = with_loading(config, universal=start.universal)
    return Placed(replace(placed, resume_tag=start.name, deepspeed=config), start)


def begin_attempt(run_dir: RunDir, plan: LaunchPlan, placed: LaunchPlan, number: int) -> LaunchPlan:
    """Return the plan of an attempt, with its files written; one that was begun is taken as it is.

    Args:
        run_dir: the run's directory.
        plan: the one made at submit.
        placed: what `place_attempt` made of it.
        number: which attempt; 1 is the first.

    Raises:
        OSError: the files cannot be written.
    """
    here = run_dir.attempt(number)
    if here.control_file.exists() or (placed == plan and here.rendered.is_dir()):
        return placed
    from orchestrator.bundle import write_bundle  # noqa: PLC0415 - most first attempts need no jinja
    from orchestrator.render import render  # noqa: PLC0415

    own = (file for file in render(placed, number) if file.path.startswith("attempt-"))
    write_bundle(run_dir, own, number)
    if placed != plan:
        write_text(here.plan_file, placed.to_json())
    return placed


def tag_to_resume(run_dir: RunDir, plan: LaunchPlan, number: int) -> Tag | None:
    """Return the checkpoint that the ranks of an attempt are told to go on from; None for none.

    After a restart that is one which this run has saved: what an earlier run left in the folder is taken
    only where the job file says `resume: always`. A run that was begun by `orchestrate resume` goes on from
    the tag in its plan, until it has saved one itself.
    """
    told = plan.resume_tag is not None
    if plan.checkpoint_dir is None or (not told and _begins_anew(plan, number)):
        return None
    from orchestrator.checkpoints import last_complete  # noqa: PLC0415 - few runs resume

    folder = Path(plan.checkpoint_dir)
    since = 0.0 if plan.resume == "always" and not told else float(run_dir.record().get("started", 0.0))
    tag = None if told and number == 1 else last_complete(folder, universal=plan.deepspeed is not None)
    if tag is not None and tag.modified >= since - _doubt(run_dir, folder, tag):
        return tag
    return _told_tag(folder, plan.resume_tag) if plan.resume_tag is not None else None


def _doubt(run_dir: RunDir, folder: Path, tag: Tag) -> float:
    """Return how many seconds before the run a tag of its own may seem to be written.

    Not one, where a folder of that name was there before the run: an earlier run may have ended just then.
    """
    from orchestrator.checkpoints.owner import noted_before  # noqa: PLC0415 - few runs resume

    before = noted_before(run_dir) or frozenset()
    return 0.0 if str(tag.path.relative_to(folder)) in before else CLOCK_SECONDS


def _told_tag(folder: Path, name: str) -> Tag:
    """Return the tag that the run was told of, or its universal form where only that is left.

    Raises:
        CheckpointError: it is gone, or not complete any more.
    """
    from orchestrator.checkpoints import sightings  # noqa: PLC0415 - as above
    from orchestrator.checkpoints.tag import SUFFIX  # noqa: PLC0415 - as above

    seen = {one.path.name: one for one in sightings(folder)}
    found = [seen[word].examine() for word in (name, name + SUFFIX) if word in seen]
    why = f"not complete any more: {found[0].why}" if found else "gone"
    tag = next((tag for tag in found if tag.complete), None)
    if tag is None:
        what = f"the checkpoint that this run goes on from is {why}"
        raise CheckpointError(Problem(what, str(folder / name)))
    return tag


def _begins_anew(plan: LaunchPlan, number: int) -> bool:
    return plan.resume == "never" or (plan.resume == "restart" and number == 1)
