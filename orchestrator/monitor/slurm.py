"""What Slurm knows of a run whose own files do not tell: it waits, or its job ended without a verdict."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from orchestrator.notify.later import tell_of_end
from orchestrator.slurm.interruption import ended_as
from orchestrator.slurm.queue import is_over, look_up
from orchestrator.slurm.reasons import explain_reason
from orchestrator.slurm.words import JobState
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.judge import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.rundir import RunDir
    from orchestrator.slurm.queue import Answer
    from orchestrator.slurm.words import JobInfo

_SETTLE_SECONDS = 3.0  # for the last words of a supervisor to come over a network disk
_UNSEEN_SECONDS = 60.0  # for a job that has been submitted to be seen


def ask(runs: Iterable[RunDir]) -> Answer | None:
    """Ask Slurm once about all runs that have a job and no verdict; None where there is none."""
    open_runs = (run for run in runs if not run.status()["state"].is_final)
    ids = [str(job["job_id"]) for run in open_runs if (job := run.slurm_job())]
    return look_up(ids) if ids else None


def seen_by_slurm(run: RunDir, status: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Return a run's status with what Slurm knows; a run whose job is over gets its verdict here.

    Args:
        run: a run that was handed to Slurm and has no verdict.
        status: what its own files say.
        answer: what Slurm was asked.
    """
    info = answer.jobs.get(str(run.slurm_job()["job_id"]))
    if float(status["since"] or 0) > answer.asked:
        return status  # what the run has said of itself since
    if info is None:
        return _unseen(run, status, answer)
    if info.state.is_waiting:
        return dict(status, state=State.PENDING, reason=_waiting(info, status))
    if info.state.is_over:
        state, words = _ended_without_verdict(run, info)
        return _settled(run, status, state, words, ended=info.ended)
    if status["state"] in (State.PENDING, State.CREATED) and info.state is not JobState.COMPLETING:
        return dict(status, state=State.STARTING, reason=f"Slurm has given it {info.nodes or 'its hosts'}")
    return status


def _ended_without_verdict(run: RunDir, info: JobInfo) -> tuple[State, str]:
    """Return how a run ended whose job is over; the SIGTERM of `cancel` may have met a start."""
    if info.signal == signal.SIGTERM and run.cancel_file.exists():
        return State.CANCELLED, "cancelled by the user while its supervisor was being started"
    state, words = ended_as(info)
    return state, f"{words}; {_no_verdict(run)}"


def _no_verdict(run: RunDir) -> str:
    if "supervisor" in run.record():
        return "the run left no verdict of its own"
    return (
        "the run never began and left no verdict of its own; every node has to see "
        f"{run.path}, where slurm-*.out may say more"
    )


def _unseen(run: RunDir, status: dict[str, Any], answer: Answer) -> dict[str, Any]:
    if answer.error:
        return dict(status, reason=f"{status['reason']} (Slurm does not answer: {answer.error})".strip())
    submitted = float(run.slurm_job().get("submitted", 0))
    if answer.asked < submitted + _UNSEEN_SECONDS:
        return status
    words = f"Slurm knows no job {run.slurm_job()['job_id']} any more, and it left no verdict"
    return _settled(run, status, State.LOST, words, ended=None)


def _waiting(info: JobInfo, status: dict[str, Any]) -> str:
    parts = [f"Slurm job {info.job_id}: {explain_reason(info.reason) or 'waiting in the queue'}"]
    if info.start:
        parts.append(f"expected to start {time.strftime('%Y-%m-%d %H:%M', time.localtime(info.start))}")
    before = status["reason"] if status["state"] is State.PENDING else ""
    if before.startswith("queued again"):
        parts.insert(0, before)
    return "; ".join(parts)


def _forget_secrets(run: RunDir) -> None:
    """Remove what a supervisor would have removed at the end: values of secrets, the token of the channel."""
    run.forget_secrets()
    for attempt in run.attempts():
        attempt.control_file.unlink(missing_ok=True)


def cancel_job(run: RunDir, *, waiting: bool) -> None:
    """Take a waiting job out of the queue; wake the supervisor of a running one.

    It looks for the file `cancel` by itself, but a host may not see it for a minute that knows from before
    that it is not there (NFS).
    """
    job_id = str(run.slurm_job()["job_id"])
    how = ["--state=PENDING"] if waiting else ["--batch", "--signal=TERM"]
    answered = _scancel(*how, job_id)
    if not waiting or not answered or "supervisor" in run.record():
        return
    if is_over(job_id):
        words = "cancelled by the user while it waited in Slurm's queue"
        _settled(run, run.status(), State.CANCELLED, words, ended=None)


def _scancel(*words: str) -> bool:
    """Run scancel; tell whether slurmctld has answered, be it that it knows no such job any more."""
    try:
        done = subprocess.run(["scancel", *words], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 or "Invalid job id" in done.stderr


def _settled(
    run: RunDir, status: dict[str, Any], state: State, words: str, *, ended: float | None
) -> dict[str, Any]:
    """Write the verdict that nobody is left to write, and return it as a status."""
    if ended is not None and time.time() - ended < _SETTLE_SECONDS:
        return status
    said = f"; before that: {status['reason']}" if status["state"] is State.STOPPING else ""
    verdict = Verdict(state, f"{words}{said}")
    with contextlib.suppress(OSError), (run.path / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if run.verdict() is None:
            started = run.record().get("started")
            run.write_verdict(to_json(verdict, run.run_id, started, ended or time.time()))
            tell_of_end(run)
            _forget_secrets(run)
    after = run.status()
    return after if after["state"].is_final else dict(status, state=state, reason=verdict.summary)
