"""Rules about options of Slurm that move ranks or GPUs from where ZeRO++ expects them.

One task on each host starts all of its ranks, so most of what goes wrong with a task for each rank cannot
happen; what is left is an option that gives that one task too few GPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.rules.facts import QGZ, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts


def _options(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Yield option, value and key of what the job file hands to sbatch and srun."""
    slurm = facts.spec.cluster.slurm
    if slurm is None:
        return
    for name, value in slurm.extra.items():
        yield name.replace("_", "-"), value or "", f"cluster.slurm.extra.{name}"
    words = slurm.srun_args
    for index, (word, after) in enumerate(zip(words, [*words, ""][1:], strict=False)):
        name, joined, value = word.removeprefix("--").partition("=")
        yield name, value if joined else after, f"cluster.slurm.srun_args.{index}"


@rule("slurm-gpu-binding", "warning")
def slurm_gpu_binding(facts: Facts) -> Iterator[Problem]:
    """Options that bind GPUs to tasks leave the one task of a host with too few.

    Source: srun.1: --gpus-per-task implies a binding per task, --gpu-bind=single gives each task one GPU;
    `utils/groups.py` of DeepSpeed takes `device_count()` for the ranks of a host.
    """
    slots = max(len(host.slots) for host in facts.pool.hosts)
    for name, value, where in _options(facts):
        count = value.rpartition(":")[2]
        few = name == "gpus-per-task" and count.isdigit() and int(count) < slots
        if slots > 1 and (
            few or (name == "gpu-bind" and value.removeprefix("verbose,").startswith("single"))
        ):
            what = f"one task starts the {slots} ranks of a host, and would see fewer GPUs"
            what += "; qgZ takes them for the size of a host" if facts.active(QGZ) else ""
            yield Problem(what, where, value, "remove it and use cluster.slurm.gpus_per_node")


@rule("slurm-distribution", "warning")
def slurm_distribution(facts: Facts) -> Iterator[Problem]:
    """--distribution does nothing: ranks are numbered host by host.

    Source: srun.1: with another distribution than block ranks of an hpZ group would be on several hosts; our
    srun asks for block, and each host's one task numbers its ranks.
    """
    for name, value, where in _options(facts):
        if name == "distribution" and value.partition(":")[0] != "block":
            what = "does nothing: ranks are numbered host by host (block), as hpZ needs them"
            yield Problem(what, where, value, "remove it")
