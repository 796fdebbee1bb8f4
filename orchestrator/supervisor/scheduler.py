"""Who gives a run its hosts. A launcher starts processes on them; that is another matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir
    from orchestrator.states import State


@dataclass(frozen=True, slots=True)
class Interruption:
    """A scheduler takes the hosts away.

    Attributes:
        state: what the run comes to if it is not started again.
        reason: in words.
        requeued: the scheduler has queued the run again, and will start another supervisor for it.
        may_requeue: it has not, but the run may ask for that.
        unclear: it gives no reason, or only that a host failed: one that the run has lost itself says more.
        host: the host that it declares down; empty for none.
    """

    state: State
    reason: str
    requeued: bool = False
    may_requeue: bool = False
    unclear: bool = False
    host: str = ""


class Scheduler(Protocol):
    """Gives the hosts of an attempt, and knows why they are taken away."""

    @property
    def key(self) -> str:
        """Return what tells these hosts from those of every other time; "" where they never change."""

    @property
    def restarts(self) -> int:
        """Return how often the run has been queued again."""

    @property
    def time_left(self) -> float | None:
        """Return the seconds until the run must make room, or None."""

    def sign(self, run_dir: RunDir) -> None:
        """Write down what the scheduler knows the run by, where submit did not do it."""

    def place(self, run_dir: RunDir, plan: LaunchPlan) -> LaunchPlan:
        """Return the plan on the hosts that were given; JobFileError where the job does not fit them."""

    async def interruption(self, heard: str) -> Interruption | None:
        """Return why the hosts are being taken away; None when they are not, or it cannot be known.

        Args:
            heard: what the launcher has said in this attempt.
        """

    async def requeue(self, without: Sequence[str]) -> str:
        """Queue the run again, to run on other hosts than these; return "" or why that failed."""


class FixedHosts:
    """The hosts that were known at submit: nobody takes them away."""

    key = ""
    restarts = 0
    time_left = None

    def sign(self, run_dir: RunDir) -> None:
        """Write nothing: nobody else knows the run."""

    def place(self, run_dir: RunDir, plan: LaunchPlan) -> LaunchPlan:
        """Return the plan as it is."""
        del run_dir
        return plan

    async def interruption(self, heard: str) -> None:
        """Nobody takes these hosts away."""
        del heard

    async def requeue(self, without: Sequence[str]) -> str:
        """Refuse: there is no queue."""
        del without
        return "there is no queue"
