"""Start `node.sh` once per host: here, through pdsh, ssh or srun. A launcher knows nothing of ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.launchers.base import Launcher, OnExit
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir


def make_launcher(plan: LaunchPlan, attempt: AttemptDir, on_exit: OnExit) -> Launcher:
    """Return the launcher of the plan's backend; each is imported only where it is used.

    Args:
        plan: the launch plan.
        attempt: where the rendered files and the launcher's log are.
        on_exit: called in the event loop when a host's command has ended.
    """
    if plan.backend == "pdsh":
        from orchestrator.launchers.pdsh import PdshLauncher  # noqa: PLC0415

        return PdshLauncher(plan, attempt, on_exit)
    if plan.backend == "ssh":
        from orchestrator.launchers.ssh import SshLauncher  # noqa: PLC0415

        return SshLauncher(plan, attempt, on_exit)
    if plan.backend == "slurm":
        from orchestrator.launchers.srun import SrunLauncher  # noqa: PLC0415

        return SrunLauncher(plan, attempt, on_exit)
    from orchestrator.launchers.local import LocalLauncher  # noqa: PLC0415

    return LocalLauncher(plan, attempt, on_exit)
