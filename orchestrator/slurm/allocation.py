"""The hosts that Slurm gave: read from the variables of a job, without asking Slurm.

`scontrol show hostnames` is not needed, and inside a container it is often not there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import Problem, SubmitError
from orchestrator.hosts.ranges import RangeSyntaxError, expand_nodelist

if TYPE_CHECKING:
    from collections.abc import Mapping

_CPUS = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?\Z")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a job was given.

    Attributes:
        job_id: what Slurm's commands take: 123, of an array's element the element's own number.
        shown_id: what people know it by: 123, or 123_4.
        restarts: how often the job was queued again.
        hosts: node names, in Slurm's order.
        cpus: CPUs of the job on the host that has fewest; None where Slurm does not tell.
        end_time: when its time limit ends it, epoch seconds; None where Slurm does not tell.
    """

    job_id: str
    shown_id: str
    restarts: int
    hosts: tuple[str, ...]
    cpus: int | None
    end_time: float | None

    @property
    def key(self) -> str:
        """Return what tells this allocation from every other: a job that is queued again gets a new one."""
        return f"{self.job_id}/{self.restarts}"


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """Return the allocation that a process of a job runs in (sbatch(1), "OUTPUT ENVIRONMENT VARIABLES").

    Raises:
        SubmitError: this is no job, a heterogeneous one, or its list of nodes cannot be read.
    """
    job_id = environ.get("SLURM_JOB_ID", "")
    nodelist = environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST", "")
    if not job_id or not nodelist:
        what, fix = "this is no Slurm job: it has no list of nodes", "submit the job, or use `salloc`"
        raise SubmitError(Problem(what, "SLURM_JOB_NODELIST", fix=fix))
    if environ.get("SLURM_HET_SIZE", "1") not in ("", "1"):
        what, size = "heterogeneous jobs are not supported", environ["SLURM_HET_SIZE"]
        raise SubmitError(Problem(what, "SLURM_HET_SIZE", size, "ask for nodes of one kind"))
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    ends = environ.get("SLURM_JOB_END_TIME", "")
    return Allocation(
        job_id=job_id,
        shown_id=f"{array}_{task}" if array and task else job_id,
        restarts=_number(environ.get("SLURM_RESTART_COUNT", "")),
        hosts=_hosts(nodelist),
        cpus=fewest_cpus(environ.get("SLURM_JOB_CPUS_PER_NODE", "")),
        end_time=float(ends) if ends.isdigit() else None,
    )


def _hosts(nodelist: str) -> tuple[str, ...]:
    try:
        return tuple(expand_nodelist(nodelist))
    except RangeSyntaxError as error:
        what = f"cannot read the list of nodes: {error}"
        raise SubmitError(Problem(what, "SLURM_JOB_NODELIST", nodelist)) from error


def fewest_cpus(text: str) -> int | None:
    """Return the least number in `2(x3),1`, as SLURM_JOB_CPUS_PER_NODE has it; None for no such list."""
    found = [_CPUS.match(part) for part in text.split(",")]
    counts = [int(match[1]) for match in found if match]
    return min(counts) if counts and len(counts) == len(found) else None


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
