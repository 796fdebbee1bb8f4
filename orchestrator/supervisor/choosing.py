"""Which scheduler a run has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from orchestrator.supervisor.scheduler import FixedHosts, Scheduler

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan


def make_scheduler(plan: LaunchPlan) -> Scheduler:
    """Return the plan's scheduler.

    Raises:
        SubmitError: the plan wants a Slurm job, and this process is in none.
    """
    if plan.slurm is None:
        return FixedHosts()
    from orchestrator.slurm.allocation import read_allocation  # noqa: PLC0415 - only Slurm jobs have one
    from orchestrator.slurm.scheduler import SlurmScheduler  # noqa: PLC0415

    return SlurmScheduler(read_allocation(os.environ), plan.slurm)
