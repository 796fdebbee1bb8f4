"""Run the points of a sweep in order, so many at a time; a failed one does not stop the others."""

from __future__ import annotations

import fcntl
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.monitor.cancel import cancel_unbegun
from orchestrator.monitor.status import current_status
from orchestrator.states import State
from orchestrator.submit import start_supervisor

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir

_POLL = 0.3  # seconds


def drive(sweep: SweepDir) -> int:
    """Run what is left of a sweep; return 0 if every point succeeded, 1 if not, 3 if another process does it.

    A driver that was killed can be replaced at any time: points that run go on, points that have ended stay.
    """
    with sweep.lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"orchestrate: {sweep.sweep_id} is being run already", file=sys.stderr)
            return 3
        return _drive(sweep)


def _drive(sweep: SweepDir) -> int:
    runs = [run for _, run in sweep.points()]
    limit = sweep.read()["parallel"] or len(runs)
    while True:
        states = [current_status(run)["state"] for run in runs]
        waiting = [run for run, state in zip(runs, states, strict=True) if state is State.PENDING]
        active = sum(not state.is_final and state is not State.PENDING for state in states)
        if not waiting and not active:
            return 0 if all(state is State.SUCCEEDED for state in states) else 1
        _start(sweep, waiting, limit - active)
        time.sleep(_POLL)


def _start(sweep: SweepDir, waiting: list[RunDir], free: int) -> None:
    if sweep.cancel_file.exists():
        for run in waiting:
            cancel_unbegun(run)
        return
    for run in waiting[: max(0, free)]:
        run.write_status(State.CREATED)
        start_supervisor(run)
