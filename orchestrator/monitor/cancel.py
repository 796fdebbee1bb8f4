"""Ask a run to end, and see that it has."""

from __future__ import annotations

import fcntl
import time
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.monitor.status import current_status
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.judge import Verdict

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

_POLL = 0.1  # seconds
_MARGIN = 30.0  # seconds for connections to close and logs to come in


def cancel(run: RunDir) -> tuple[State, str]:
    """End a run and wait for its verdict; return its state and what to tell the user. Idempotent.

    Raises:
        OrchestratorError: the run directory cannot be written.
    """
    status = current_status(run)
    taking_over = can_take_over(run, status["state"])
    if status["state"].is_final and not taking_over:
        return status["state"], f"had ended already: {status['reason']}"
    if cancel_unbegun(run):
        return State.CANCELLED, run.status()["reason"]
    try:
        run.cancel_file.touch()
    except OSError as error:
        problem = Problem(f"cannot ask the run to end: {error.strerror}", str(run.cancel_file))
        raise OrchestratorError(problem) from error
    if run.slurm_job():
        from orchestrator.monitor.slurm import cancel_job  # noqa: PLC0415 - only runs on Slurm need it

        cancel_job(run, waiting=status["state"] is State.PENDING)
    if taking_over:
        from orchestrator.submit import start_supervisor  # noqa: PLC0415 - only here something is started

        start_supervisor(run)
    plan = run.plan()
    deadline = time.monotonic() + plan.grace + plan.lease + _MARGIN
    while time.monotonic() < deadline:
        status = current_status(run)
        if status["state"].is_final and not (taking_over and status["state"] is State.LOST):
            break
        time.sleep(_POLL)
    return status["state"], status["reason"]


def cancel_unbegun(run: RunDir) -> bool:
    """Give a point of a sweep that has not begun its verdict; False if it has, or waits in Slurm's queue."""
    waits = run.status()["state"] is State.PENDING and "sweep" in run.record()
    if run.slurm_job() or "supervisor" in run.record() or not waits:
        return run.verdict() is not None
    try:
        with (run.path / "supervisor.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            verdict = Verdict(State.CANCELLED, "cancelled by the user before its turn in the sweep")
            if run.verdict() is None:
                run.write_verdict(to_json(verdict, run.run_id, None, time.time()))
    except OSError:
        return False  # it has just begun, or cannot be written
    run.forget_secrets()
    return True


def can_take_over(run: RunDir, state: State) -> bool:
    """Tell whether agents of a run without a supervisor may still be waiting for one."""
    attempts = run.attempts()
    return state is State.LOST and bool(attempts) and attempts[-1].control_file.exists()
