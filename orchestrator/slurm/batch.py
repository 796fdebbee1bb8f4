"""The `#SBATCH` lines of a run: what the job file asks for, and what the run itself needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.slurm.options import sbatch_line

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan


def batch_lines(plan: LaunchPlan) -> list[str]:
    """Return the lines of a run's batch script, in the order a reader wants them.

    Raises:
        ValueError: a value cannot be written into a script.
    """
    return _lines(plan, {}, f"{_pattern(plan.run_dir)}/slurm-%j.out")


def array_lines(plan: LaunchPlan, folder: str, array: str) -> list[str]:
    """Return the lines of a sweep's batch script.

    Args:
        plan: of any of its points.
        folder: the sweep's directory.
        array: as in sbatch --array.

    Raises:
        ValueError: a value cannot be written into a script.
    """
    return _lines(plan, {"array": array}, f"{_pattern(folder)}/slurm-%A_%a.out")


def _pattern(path: str) -> str:
    """Return a path for sbatch(1)'s "filename pattern", where a percent sign is doubled."""
    return path.replace("%", "%%")


def _lines(plan: LaunchPlan, more: dict[str, str | None], output: str) -> list[str]:
    if plan.slurm is None:
        return []
    own: dict[str, str | None] = {
        "job-name": plan.name,
        **plan.slurm.options,
        **more,
        "output": output,
        "open-mode": "append",
        "requeue" if plan.slurm.requeue else "no-requeue": None,
    }
    if plan.slurm.signal_before:
        own["signal"] = f"B:USR2@{plan.slurm.signal_before}"
    return [sbatch_line(option, value) for option, value in own.items()]
