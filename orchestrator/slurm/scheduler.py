"""Slurm as the giver of hosts: the allocation this process runs in, why it ends, and another one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.rundir import write_json
from orchestrator.slurm.nodes import excluded_nodes, other_nodes, see_down
from orchestrator.slurm.queue import show_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.job import LoadedJob
    from orchestrator.plan import LaunchPlan, SlurmPlan
    from orchestrator.rundir import RunDir
    from orchestrator.slurm.allocation import Allocation
    from orchestrator.supervisor.scheduler import Interruption

_ASK_SECONDS = 60.0  # for all questions about one end, to a slurmctld that is busy


class SlurmScheduler:
    """The job that this process is the batch script of, or the allocation that its user holds."""

    def __init__(self, allocation: Allocation, slurm: SlurmPlan) -> None:
        self.allocation = allocation
        self._slurm = slurm

    @property
    def key(self) -> str:
        """Return the job and how often it was queued again."""
        return self.allocation.key

    @property
    def restarts(self) -> int:
        """Return how often the job was queued again."""
        return self.allocation.restarts

    @property
    def time_left(self) -> float | None:
        """Return the seconds until the run must make room for its time limit."""
        end = self.allocation.end_time
        return None if end is None else end - self._slurm.signal_before - time.time()

    def sign(self, run_dir: RunDir) -> None:
        """Write down the job's id: the script may have been submitted with sbatch itself."""
        if not self._slurm.in_allocation and not run_dir.slurm_file.exists():
            write_json(run_dir.slurm_file, {"job_id": self.allocation.shown_id, "submitted": time.time()})

    def place(self, run_dir: RunDir, plan: LaunchPlan) -> LaunchPlan:
        """Return the plan on the hosts of the allocation, after the slots of the job file's filters.

        Raises:
            JobFileError: the job does not fit these hosts.
        """
        from orchestrator import prepare  # noqa: PLC0415 - it needs what a later attempt only needs

        return prepare.place(plan, submitted_job(run_dir, plan), self.allocation.hosts)

    async def interruption(self, heard: str) -> Interruption | None:
        """Ask Slurm why it ends the job; srun may have heard more than it tells later."""
        from orchestrator.slurm.interruption import why_ending  # noqa: PLC0415

        asking = asyncio.to_thread(why_ending, self.allocation.job_id, self.allocation.restarts, heard)
        try:
            return await asyncio.wait_for(asking, _ASK_SECONDS)
        except TimeoutError:
            return None

    async def requeue(self, without: Sequence[str]) -> str:
        """Have Slurm queue the job again, on other hosts than these; return "" or why not."""
        if self._slurm.in_allocation:
            return "the allocation is the user's own"
        if not self._slurm.requeue:
            return "cluster.slurm.requeue is false"
        await asyncio.to_thread(see_down, without)
        if await self._is_queued_again():
            return ""
        code, said = await _scontrol("requeue", self.allocation.job_id)
        if code:
            return "" if await self._is_queued_again() else said
        if without:
            await self._leave_out(without)
        return ""

    async def _is_queued_again(self) -> bool:
        """Tell whether Slurm did it itself: it declared a host down, or the grace time was over meanwhile."""
        info = await asyncio.to_thread(show_job, self.allocation.job_id)
        return info is not None and (info.restarts or 0) > self.allocation.restarts

    async def _leave_out(self, hosts: Sequence[str]) -> None:
        """Add hosts to what the job excludes, unless it would never start again for that."""
        if "nodelist" in self._slurm.options:
            return  # the user wants these very hosts: Slurm gives them again once they are up
        job = self.allocation.job_id
        left_out = dict.fromkeys([*await asyncio.to_thread(excluded_nodes, job), *hosts])
        others = await asyncio.to_thread(other_nodes, job, left_out)
        if len(others) >= len(self.allocation.hosts):
            await _scontrol("update", f"JobId={job}", f"ExcNodeList={','.join(left_out)}")


def submitted_job(run_dir: RunDir, plan: LaunchPlan) -> LoadedJob:
    """Return the job as it was submitted; what it refers to may have changed since."""
    from pathlib import Path  # noqa: PLC0415

    from orchestrator.job import load_job  # noqa: PLC0415

    job = load_job(run_dir.job_file, base_dir=Path(plan.base_dir))
    if not run_dir.ds_source.exists() or job.spec.deepspeed is None:
        return job
    kept = job.spec.deepspeed.model_copy(update={"config_file": run_dir.ds_source})
    return replace(job, spec=job.spec.model_copy(update={"deepspeed": kept}))


async def _scontrol(*words: str) -> tuple[int, str]:
    """Run scontrol; return its exit code and what it said."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("scontrol", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), _ASK_SECONDS)
    except (OSError, TimeoutError) as error:
        return 1, f"scontrol {words[0]}: {error or 'no answer'}"
    return process.returncode or 0, said.decode("utf-8", "replace").strip()
