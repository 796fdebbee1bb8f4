"""Which attempt a supervisor drives: the next one, or one whose supervisor is gone."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.rundir import read_json, write_json, write_text
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir
    from orchestrator.supervisor.scheduler import Scheduler

CLOCK_SECONDS = 60.0
"""How far the clock of a file server may be behind ours."""
_UNTOLD = "the hosts were taken away without notice, and the run was queued again"


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


def begin_attempt(run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler, number: int) -> LaunchPlan:
    """Return the plan of an attempt, with its files written; one that was begun is taken as it is.

    Raises:
        JobFileError: the job does not fit the hosts that were given.
        OSError: the files cannot be written.
    """
    here = run_dir.attempt(number)
    if here.control_file.exists():
        return run_dir.plan(here)
    placed = replace(scheduler.place(run_dir, plan), resume_tag=resume_tag(run_dir, plan, number))
    if placed == plan and here.rendered.is_dir():
        return plan
    from orchestrator.bundle import write_bundle  # noqa: PLC0415 - most first attempts need no jinja
    from orchestrator.render import render  # noqa: PLC0415

    own = (file for file in render(placed, number) if file.path.startswith("attempt-"))
    write_bundle(run_dir, own, number)
    if placed != plan:
        write_text(here.plan_file, placed.to_json())
    return placed


def resume_tag(run_dir: RunDir, plan: LaunchPlan, number: int) -> str | None:
    """Return the checkpoint that the ranks of an attempt are told to go on from; None for none.

    After a restart that is one which this run has saved: what an earlier run left in the folder is taken
    only where the job file says `resume: always`.
    """
    if plan.checkpoint_dir is None or plan.resume == "never" or (plan.resume == "restart" and number == 1):
        return None
    from orchestrator.checkpoints import last_complete  # noqa: PLC0415 - few runs resume

    tag = last_complete(Path(plan.checkpoint_dir))
    since = 0.0 if plan.resume == "always" else float(run_dir.record().get("started", 0.0))
    return None if tag is None or tag.modified < since - CLOCK_SECONDS else tag.name
