"""The states of a run."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a run is doing, or how it ended."""

    CREATED = "CREATED"  # the run directory exists, no supervisor has taken it yet
    PENDING = "PENDING"  # it waits for Slurm to give it its hosts, or to give them again
    STARTING = "STARTING"  # agents are being started on the hosts
    RUNNING = "RUNNING"  # every host has been told to start its ranks
    STOPPING = "STOPPING"  # ranks are being ended
    SUCCEEDED = "SUCCEEDED"  # every rank of every host exited 0
    FAILED = "FAILED"  # a rank, a launcher or a host failed
    CANCELLED = "CANCELLED"  # the user ended it
    TIMEOUT = "TIMEOUT"  # the job file's time limit ended it
    PREEMPTED = "PREEMPTED"  # Slurm gave its hosts to another job, and will not start it again
    LOST = "LOST"  # its supervisor is gone and left no verdict
    UNKNOWN = "UNKNOWN"  # the run directory says something this version does not know

    @property
    def is_final(self) -> bool:
        """Tell whether nothing of the run will happen any more."""
        return self in _FINAL


_FINAL = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMEOUT, State.PREEMPTED, State.LOST}
)
