"""Questions about the job's name and where it runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.init import guess
from orchestrator.init.question import Choice, Question, always, answered
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.init.machine import Machine
    from orchestrator.init.question import Answers

_WHERE = "Where it runs"


def _name(_answers: Answers, machine: Machine) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", machine.folder.resolve().name).strip("-.")[:60] or "job"


def _backends(_answers: Answers, machine: Machine) -> tuple[Choice, ...]:
    count, known = counted(len(machine.gpus), "GPU"), counted(len(machine.partitions), "partition")
    gpus = f"{count} here" if machine.gpus else f"no GPU here, {counted(machine.cpus, 'CPU')}"
    slurm = f"{known} here" if machine.partitions else "sinfo says nothing here"
    pdsh = "found here" if machine.pdsh else "not found here"
    return (
        Choice(
            "local", "this machine", f"One host or several simulated ones, to train or to try out ({gpus})."
        ),
        Choice("slurm", "Slurm", f"sbatch asks for the nodes; preempted runs are queued again ({slurm})."),
        Choice(
            "pdsh", "hosts over pdsh", f"The hosts of a hostfile, as DeepSpeed's launcher does it ({pdsh})."
        ),
        Choice(
            "ssh", "hosts over ssh", "The hosts of a hostfile, with plain ssh and nothing else to install."
        ),
    )


def _partitions(_answers: Answers, machine: Machine) -> tuple[Choice, ...]:
    named = tuple(
        Choice(
            each.name,
            each.name,
            f"{each.nodes} nodes, {each.gpus or 'no GPUs'}, {each.cpus} CPUs, at most {each.time}.",
        )
        for each in machine.partitions
    )
    return (*named, Choice(None, "Slurm's default", "Say nothing, and let Slurm take its default partition."))


def _default_partition(_answers: Answers, machine: Machine) -> str | None:
    for each in sorted(machine.partitions, key=lambda part: (not part.gpus, not part.default)):
        return each.name
    return None


QUESTIONS = (
    Question(
        "name",
        "The job",
        "What is the job called?",
        "The name stands in lists and begins the id of each of its runs.",
        default=_name,
        needed=True,
    ),
    Question(
        "cluster.backend",
        _WHERE,
        "Where does it run?",
        "Who gives the hosts. Only this section of the job file changes when the job moves elsewhere.",
        "choice",
        choices=_backends,
        default=guess.backend,
        needed=True,
    ),
    Question(
        "cluster.hostfile",
        _WHERE,
        "Which hostfile?",
        "DeepSpeed's: one host a line, `node1 slots=8`. A relative path starts at the job file's folder.",
        default=lambda _answers, machine: machine.hostfiles[0] if machine.hostfiles else "hostfile",
        when=answered("cluster.backend", "pdsh", "ssh"),
        needed=True,
    ),
    Question(
        "cluster.nodes",
        _WHERE,
        "How many hosts?",
        "The first N of the hostfile; without an answer all of them.",
        "value",
        when=answered("cluster.backend", "pdsh", "ssh"),
    ),
    Question(
        "cluster.slurm.partition",
        _WHERE,
        "Which partition?",
        "What `sinfo` lists here.",
        "choice",
        choices=_partitions,
        default=_default_partition,
        when=lambda answers, machine: answers["cluster.backend"] == "slurm" and bool(machine.partitions),
    ),
    Question(
        "cluster.slurm.partition",
        _WHERE,
        "Which partition?",
        "As `sinfo` on the cluster lists it; without an answer Slurm takes its default.",
        default=lambda _answers, machine: machine.environ.get("SBATCH_PARTITION"),
        when=lambda answers, machine: answers["cluster.backend"] == "slurm" and not machine.partitions,
    ),
    Question(
        "cluster.nodes",
        _WHERE,
        "How many nodes?",
        "sbatch asks for exactly so many. ZeRO++ is for two and more.",
        "value",
        default=guess.slurm_nodes,
        when=answered("cluster.backend", "slurm"),
        needed=True,
    ),
    Question(
        "cluster.slurm.gpus_per_node",
        _WHERE,
        "How many GPUs on each node?",
        "A number, or kind and number such as h100:8. It is also the number of ranks of a node.",
        default=guess.gpus_per_node,
        when=answered("cluster.backend", "slurm"),
    ),
    Question(
        "cluster.slots",
        _WHERE,
        "How many ranks on each node?",
        "One for each GPU elsewhere; without GPUs it is how many processes share a node's CPUs.",
        "value",
        default=always(1),
        when=lambda answers, _machine: (
            answers["cluster.backend"] == "slurm" and answers["cluster.slurm.gpus_per_node"] is None
        ),
        needed=True,
    ),
    Question(
        "cluster.slurm.time",
        _WHERE,
        "How long may it take?",
        "Slurm's time limit: minutes, HH:MM:SS or D-HH:MM:SS. Before it ends, ranks are told to save, and "
        "the run is queued again.",
        default=guess.slurm_time,
        when=answered("cluster.backend", "slurm"),
    ),
    Question(
        "cluster.slurm.account",
        _WHERE,
        "Which account pays?",
        "Many clusters want one; without an answer Slurm takes yours.",
        default=lambda _answers, machine: (
            machine.environ.get("SBATCH_ACCOUNT") or machine.environ.get("SLURM_JOB_ACCOUNT")
        ),
        when=answered("cluster.backend", "slurm"),
    ),
    Question(
        "cluster.nodes",
        _WHERE,
        "How many hosts should be simulated?",
        "One trains on this machine. Two and more share its GPUs or CPUs, to try out what several hosts do.",
        "value",
        default=always(1),
        when=answered("cluster.backend", "local"),
        needed=True,
    ),
    Question(
        "cluster.slots",
        _WHERE,
        "How many ranks on each of them?",
        "One for each GPU; on CPUs, two are enough to try something out.",
        "value",
        default=guess.local_slots,
        when=answered("cluster.backend", "local"),
        needed=True,
    ),
)
