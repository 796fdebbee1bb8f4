"""Defaults: what the answers so far and the machine make likely."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.init.script import read_script

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine, Partition
    from orchestrator.init.question import Answers, Find
    from orchestrator.init.script import Script

_BEFORE_AMPERE = re.compile(
    r"\b(?:v100|p100|p40|p4|t4|k80|m60|titan|gtx|quadro rtx|rtx ?20\d\d)\b|\b(?:tesla|volta|pascal|turing)\b",
    re.IGNORECASE,
)


def backend(_answers: Answers, machine: Machine) -> str:
    """Return slurm where there is one, pdsh or ssh where there is a hostfile, else local."""
    if machine.partitions:
        return "slurm"
    if machine.hostfiles:
        return "pdsh" if machine.pdsh else "ssh"
    return "local"


def partition(answers: Answers, machine: Machine) -> Partition | None:
    """Return the partition that was chosen, else Slurm's default one, as far as sinfo tells."""
    wanted = answers.get("cluster.slurm.partition")
    for each in machine.partitions:
        if each.name == wanted or (wanted is None and each.default):
            return each
    return None


def slurm_nodes(answers: Answers, machine: Machine) -> int:
    """Return the nodes of the allocation this shell holds, else two where the partition has them."""
    held = machine.environ.get("SLURM_JOB_NUM_NODES") or machine.environ.get("SLURM_NNODES") or ""
    part = partition(answers, machine)
    return int(held) if held.isdecimal() else min(2, part.nodes) if part else 2


def slurm_time(answers: Answers, machine: Machine) -> str | None:
    """Return a day, or the partition's own limit where that is shorter."""
    part = partition(answers, machine)
    limit = part.time if part else ""
    short = re.fullmatch(r"\d+:\d+(:\d+)?", limit) is not None
    return limit if short else "24:00:00"


def gpus_per_node(answers: Answers, machine: Machine) -> str | None:
    """Return the GPUs of a node as sinfo tells them, or of the allocation that this shell holds."""
    part = partition(answers, machine)
    return (part.gpus if part else "") or machine.environ.get("SLURM_GPUS_ON_NODE") or None


def local_slots(answers: Answers, machine: Machine) -> int:
    """Return the GPUs of a simulated host; two ranks of a machine without any."""
    nodes = whole(answers.get("cluster.nodes")) or 1
    return max(1, len(machine.gpus) // nodes) if machine.gpus else min(2, machine.cpus)


def shape(answers: Answers, machine: Machine) -> tuple[int, int]:
    """Return the number of hosts and the least number of ranks on one; 0 for what is not known."""
    nodes, slots = whole(answers.get("cluster.nodes")), whole(answers.get("cluster.slots"))
    if answers.get("cluster.hostfile"):
        counts = _hostfile_slots(answers, machine)[: nodes or None]
        return nodes or len(counts), slots or min(counts, default=0)
    gpus = re.search(r"(\d+)$", str(answers.get("cluster.slurm.gpus_per_node") or ""))
    return nodes or 1, slots or (int(gpus[1]) if gpus else 1)


def whole(value: Any) -> int:
    """Return a count that was answered; 0 for none, and for an answer that is none and will be refused."""
    return value if isinstance(value, int) and value > 0 else 0


def several_hosts(answers: Answers, machine: Machine) -> bool:
    """Return whether there is more than one host, as far as that is known."""
    return shape(answers, machine)[0] != 1


def _hostfile_slots(answers: Answers, machine: Machine) -> list[int]:
    from orchestrator.errors import JobFileError  # noqa: PLC0415 - only for a hostfile
    from orchestrator.hosts import read_hostfile  # noqa: PLC0415

    try:
        pool = read_hostfile(machine.folder / Path(str(answers["cluster.hostfile"])).expanduser())
    except (JobFileError, OSError, ValueError, RuntimeError):  # expanduser: no such user
        return []
    return [len(host.slots) for host in pool.hosts]


def without_gpus(answers: Answers, machine: Machine) -> bool:
    """Return whether the ranks surely run on CPUs."""
    if answers.get("cluster.backend") == "slurm":
        return not answers.get("cluster.slurm.gpus_per_node") and bool(answers.get("cluster.slots"))
    return answers.get("cluster.backend") == "local" and not machine.gpus


def precision(answers: Answers, machine: Machine) -> str:
    """Return bf16, but fp16 for GPUs before Ampere (compute capability 8.0), which have no bf16 units."""
    known = str(machine.accelerate.get("mixed_precision", ""))
    if known in ("fp16", "bf16"):
        return known
    kinds = [str(answers.get("cluster.slurm.gpus_per_node") or "")]
    if answers.get("cluster.backend") != "slurm":
        kinds = [gpu.name for gpu in machine.gpus if gpu.capability is None or gpu.capability < 8]
        if any(gpu.capability for gpu in machine.gpus) and kinds:
            return "fp16"
    return "fp16" if any(_BEFORE_AMPERE.search(kind.replace(":", " ")) for kind in kinds) else "bf16"


def script(answers: Answers, machine: Machine) -> Script:
    """Return what the script's text shows."""
    return read_script(machine.folder / str(answers.get("train.script") or ""))


def launcher(answers: Answers, machine: Machine) -> str:
    """Return accelerate for a script that makes an Accelerator, else torchrun."""
    return "accelerate" if script(answers, machine).accelerate else "torchrun"


def accelerate_value(name: str, otherwise: Any) -> Find:
    """Return what finds a default: what Accelerate's default configuration says, else `otherwise`."""

    def find(_answers: Answers, machine: Machine) -> Any:
        section = machine.accelerate.get("deepspeed_config")
        found = section.get(name) if isinstance(section, dict) else None
        return otherwise if found in (None, "auto") else found

    return find


def gpu_kind(answers: Answers, machine: Machine) -> str | None:
    """Return the GPU as the job file's `hardware.gpu` calls it, where the estimates know it."""
    from orchestrator.estimate.hardware import find_gpu  # noqa: PLC0415 - only for this question

    part = str(answers.get("cluster.slurm.gpus_per_node") or "").rpartition(":")[0]
    here = machine.gpus[0].name if machine.gpus and answers.get("cluster.backend") == "local" else ""
    try:
        return find_gpu(part or here).name if part or here else None
    except ValueError:
        return None
