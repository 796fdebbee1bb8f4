"""Run the points of a sweep in order, so many at a time; a failed one does not stop the others."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from orchestrator.monitor.cancel import can_take_over, cancel_unbegun
from orchestrator.monitor.status import current_status
from orchestrator.states import State
from orchestrator.submit import start_supervisor

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir

_POLL = 0.3  # seconds
_Active = tuple["RunDir", int | None]
"""A point that runs, and the pid of its supervisor where we have started that."""


def drive(sweep: SweepDir, lock: int | None = None) -> int:
    """Run what is left of a sweep; return 0 if every point succeeded, 1 if not, 3 if it is not for us to do.

    A driver that was killed can be replaced at any time: points that run go on, points that have ended stay.

    Args:
        sweep: the sweep.
        lock: an open file that holds its lock, from whoever has started us.
    """
    if sweep.batch_script.exists():
        print(f"orchestrate: Slurm starts these points: sbatch {sweep.batch_script}", file=sys.stderr)
        return 3
    handle = sweep.lock() if lock is None else lock
    if handle is None:
        print(f"orchestrate: {sweep.sweep_id} is being run already", file=sys.stderr)
        return 3
    try:
        return _drive(sweep)
    finally:
        os.close(handle)


def _drive(sweep: SweepDir) -> int:
    runs = [run for _, run in sweep.points()]
    limit = sweep.read()["parallel"] or len(runs)
    waiting, active = _taken_up(runs)
    while waiting or active:
        active = [each for each in active if _goes_on(*each)]
        cancelled = sweep.cancel_file.exists()
        if cancelled:
            waiting = deque(run for run in waiting if not cancel_unbegun(run))
        while waiting and len(active) < limit and not cancelled:
            run = waiting.popleft()
            if run.verdict() is None:  # it may have been cancelled meanwhile
                active.append((run, _start(run)))
        time.sleep(_POLL)
    return 0 if all(run.status()["state"] is State.SUCCEEDED for run in runs) else 1


def _taken_up(runs: list[RunDir]) -> tuple[deque[RunDir], list[_Active]]:
    """Return the points that wait and those that run; what was cut off with an earlier driver goes on."""
    waiting: deque[RunDir] = deque()
    active: list[_Active] = []
    for run in runs:
        state = current_status(run)["state"]
        if state is State.PENDING:
            waiting.append(run)
        elif _was_cut_off(run, state):
            active.append((run, _start(run)))
        elif not state.is_final:
            active.append((run, None))
    return waiting, active


def _was_cut_off(run: RunDir, state: State) -> bool:
    """Tell whether a point lacks a supervisor: it never had one, or its hosts still wait for another."""
    if "supervisor" in run.record():
        return can_take_over(run, state)
    return state in (State.CREATED, State.LOST)


def _start(run: RunDir) -> int:
    """Start a point's supervisor and return its pid; where the point has one already, this one just ends."""
    if "supervisor" not in run.record():
        run.write_status(State.CREATED)
    return start_supervisor(run)


def _goes_on(run: RunDir, supervisor: int | None) -> bool:
    """Tell whether a point still counts: its supervisor may be slow to start, or may have been killed."""
    if supervisor is not None and not _has_ended(supervisor):
        return True
    return not current_status(run)["state"].is_final


def _has_ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:  # it was told before
        return True
