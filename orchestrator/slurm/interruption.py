"""Why Slurm ends a job that is still winding up, in our states and in words."""

from __future__ import annotations

import re
import time

from orchestrator.slurm.queue import base_state, show_job
from orchestrator.slurm.words import JobInfo, JobState
from orchestrator.states import State
from orchestrator.supervisor.scheduler import Interruption

_PATIENCE = 20.0  # seconds
_NODE_FAILURE = re.compile(r"srun: error: Node failure on (\S+)")
_ENDS = {
    JobState.CANCELLED: (State.CANCELLED, "Slurm job {id} was cancelled (scancel)"),
    JobState.TIMEOUT: (State.TIMEOUT, "Slurm job {id} reached its time limit"),
    JobState.DEADLINE: (State.TIMEOUT, "Slurm job {id} reached its deadline"),
    JobState.PREEMPTED: (State.PREEMPTED, "Slurm job {id} was preempted and is not queued again"),
    JobState.NODE_FAIL: (State.FAILED, "a node of Slurm job {id} failed"),
    JobState.BOOT_FAIL: (State.FAILED, "a node of Slurm job {id} could not be booted"),
    JobState.OUT_OF_MEMORY: (State.FAILED, "Slurm job {id} used more memory than it had asked for"),
    JobState.FAILED: (State.FAILED, "Slurm job {id} failed"),
    JobState.LAUNCH_FAILED: (State.FAILED, "Slurm job {id} could not be started on its nodes"),
    JobState.COMPLETED: (State.LOST, "Slurm job {id} ended"),
}


def why_ending(job_id: str, restarts: int, heard: str = "") -> Interruption | None:
    """Ask Slurm why it ends a job; None when it does not, or does not answer.

    Args:
        job_id: the job.
        restarts: how often it had been queued again when this run of it began.
        heard: what srun has printed. Only it tells a preemption or a node that is down once the job waits
            again (22.05).
    """
    info = _asked(job_id)
    if info is None:
        return None
    if info.restarts is not None and info.restarts > restarts:
        return _requeued(info, heard)
    state = base_state(job_id, script_lives=True) if info.state is JobState.COMPLETING else info.state
    if state is JobState.PENDING:
        return _requeued(info, heard)
    if state is None or not state.is_over or state in (JobState.FAILED, JobState.COMPLETED):
        # A job that only ends because its batch script does is no interruption.
        return _preempting(info)
    ending, words = _ENDS[state]
    return Interruption(ending, words.format(id=job_id), unclear=state is JobState.NODE_FAIL)


def _asked(job_id: str) -> JobInfo | None:
    """Ask slurmctld about a job until it answers: a verdict that follows from its silence would stand."""
    deadline = time.monotonic() + _PATIENCE
    while (info := show_job(job_id)) is None and time.monotonic() < deadline:
        time.sleep(1)
    return info


def _requeued(info: JobInfo, heard: str) -> Interruption:
    """Return why Slurm has queued a job again by itself."""
    again = f"job {info.job_id} and queued it again"
    if info.preempted or "DUE TO PREEMPTION" in heard:
        return Interruption(State.PREEMPTED, f"Slurm preempted {again}", requeued=True)
    if down := _NODE_FAILURE.search(heard):
        told = f"Slurm declared {down[1]} down, ended {again}"
        return Interruption(State.FAILED, told, requeued=True, unclear=True, host=down[1])
    return Interruption(State.PREEMPTED, f"Slurm took the hosts of {again}", requeued=True, unclear=True)


def _preempting(info: JobInfo) -> Interruption | None:
    """Return the preemption of a job that still has its grace time.

    Slurm queues it again, where its partition says so, only when that time has run out; a script that has
    ended by then counts as completed. So the run has to ask for it.
    """
    if not info.preempted:
        return None
    return Interruption(State.PREEMPTED, f"Slurm preempted job {info.job_id}", may_requeue=True)


def ended_as(info: JobInfo) -> tuple[State, str]:
    """Return how a run ended whose job is over although it left no verdict."""
    state, words = _ENDS.get(info.state, (State.LOST, "Slurm job {id} ended"))
    details = []
    if info.signal:
        details.append(f"killed by signal {info.signal}")
    elif info.exit_code:
        details.append(f"exit code {info.exit_code}")
    if info.reason:
        details.append(info.reason)
    said = f" ({', '.join(details)})" if details else ""
    return state, f"{words.format(id=info.job_id)}{said}"
