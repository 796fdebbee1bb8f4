"""Slurm's words for the states of a job, and what is known of one (parsed by `printed`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.slurm.reasons import explain_reason, never_starts

__all__ = ["JobInfo", "JobState", "explain_reason", "job_state", "never_starts"]


class JobState(StrEnum):
    """What Slurm says a job is doing: its base states, and the flags it prints in place of one."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"
    NODE_FAIL = "NODE_FAIL"
    PREEMPTED = "PREEMPTED"
    BOOT_FAIL = "BOOT_FAIL"
    DEADLINE = "DEADLINE"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    # Flags: the base state below one is not printed (see `queue.base_state`).
    COMPLETING = "COMPLETING"  # ended or about to be queued again, nodes not free yet
    CONFIGURING = "CONFIGURING"  # has nodes, which boot or run their prolog
    EXPEDITING = "EXPEDITING"  # 25.11: queued again ahead of all others
    LAUNCH_FAILED = "LAUNCH_FAILED"
    POWER_UP_NODE = "POWER_UP_NODE"
    RECONFIG_FAIL = "RECONFIG_FAIL"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"  # another cluster of the federation runs it
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"  # queued again, held, by the site's rules
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    UPDATE_DB = "UPDATE_DB"
    UNKNOWN = "UNKNOWN"  # a word that is not known here; `JobInfo.raw` has it

    @property
    def is_over(self) -> bool:
        """Tell whether the job has ended and will not run again by itself."""
        return self in _OVER

    @property
    def is_waiting(self) -> bool:
        """Tell whether the job is in the queue and has no nodes."""
        return self in _WAITING

    @property
    def is_running(self) -> bool:
        """Tell whether the job has nodes: it starts, runs, is suspended, or is ending."""
        return self not in _OVER | _WAITING | {JobState.UNKNOWN}


_OVER = frozenset(
    {
        JobState.COMPLETED,
        JobState.CANCELLED,
        JobState.FAILED,
        JobState.TIMEOUT,
        JobState.NODE_FAIL,
        JobState.PREEMPTED,
        JobState.BOOT_FAIL,
        JobState.DEADLINE,
        JobState.OUT_OF_MEMORY,
        JobState.LAUNCH_FAILED,
        JobState.REVOKED,
    }
)
_WAITING = frozenset(
    {
        JobState.PENDING,
        JobState.EXPEDITING,
        JobState.REQUEUED,
        JobState.REQUEUE_FED,
        JobState.REQUEUE_HOLD,
        JobState.RESV_DEL_HOLD,
        JobState.SPECIAL_EXIT,
    }
)
_CODES = {  # `squeue --format=%t`
    "BF": JobState.BOOT_FAIL,
    "CA": JobState.CANCELLED,
    "CD": JobState.COMPLETED,
    "CF": JobState.CONFIGURING,
    "CG": JobState.COMPLETING,
    "DL": JobState.DEADLINE,
    "F": JobState.FAILED,
    "NF": JobState.NODE_FAIL,
    "OOM": JobState.OUT_OF_MEMORY,
    "PD": JobState.PENDING,
    "PR": JobState.PREEMPTED,
    "R": JobState.RUNNING,
    "RD": JobState.RESV_DEL_HOLD,
    "RF": JobState.REQUEUE_FED,
    "RH": JobState.REQUEUE_HOLD,
    "RQ": JobState.REQUEUED,
    "RS": JobState.RESIZING,
    "RV": JobState.REVOKED,
    "S": JobState.SUSPENDED,
    "SE": JobState.SPECIAL_EXIT,
    "SI": JobState.SIGNALING,
    "SO": JobState.STAGE_OUT,
    "ST": JobState.STOPPED,
    "TO": JobState.TIMEOUT,
}


def job_state(word: str) -> JobState:
    """Return the state that `word` stands for; UNKNOWN for a word that is not Slurm's.

    Takes what the tools print: `CANCELLED by 1000` and `CANCELLED+` (sacct), `PD` (squeue), any case.
    """
    first = next(iter(word.upper().split()), "").rstrip("+")
    if first in _CODES:
        return _CODES[first]
    return JobState(first) if first in JobState.__members__ else JobState.UNKNOWN


@dataclass(frozen=True, slots=True)
class JobInfo:
    """What Slurm tells about one job.

    Attributes:
        job_id: what people know it by: `123`, `123_4` of an array, `123+1` of a heterogeneous job.
        number: what Slurm counts it by; an array's element has one of its own once it has started.
        state: what the job is doing.
        raw: Slurm's own word for that.
        reason: Slurm's word for why it waits or how it ended; empty when there is none.
        nodes: the nodelist as Slurm writes it, `node[1-3,7]`; empty while there is none.
        start: when it started; while it waits, when Slurm expects it to. Epoch seconds, as all times here.
        submitted: when it was submitted, or queued again.
        ended: when it ended; of a COMPLETING job a time to come means that it is queued again.
        exit_code: of the batch script; None while the job is not over.
        signal: what killed the batch script; None if nothing did.
        restarts: how often it was queued again; None where the source does not tell.
        preempted: a job of higher priority is taking, or has taken, its nodes.
        name: the job's name.
        source: who said so: `squeue`, `scontrol` or `sacct`.
    """

    job_id: str
    number: str
    state: JobState
    raw: str = ""
    reason: str = ""
    nodes: str = ""
    start: float | None = None
    submitted: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    restarts: int | None = None
    preempted: bool = False
    name: str = ""
    source: str = ""
