"""What the checks look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.job import JobSpec
    from orchestrator.plan import LaunchPlan
    from orchestrator.preflight.findings import Host


@dataclass(frozen=True)
class Case:
    """What the checks look at.

    Attributes:
        plan: the launch plan.
        spec: the job file.
        hosts: all hosts, in rank order.
        from_login: we are on a login host of Slurm, and a run's supervisor would be on one of the job's.
    """

    plan: LaunchPlan
    spec: JobSpec
    hosts: tuple[Host, ...]
    from_login: bool = False

    def with_data(self, probe: str) -> dict[str, Host]:
        """Return the hosts that gave a probe's data, by name."""
        return {host.name: host for host in self.hosts if probe in host.probes}
