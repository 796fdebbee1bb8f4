"""What sbatch says when it refuses a job, in plain language, and what to do about it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_NOISE = re.compile(r"^(sbatch: )?(error: )?", re.MULTILINE)
_UP = "is slurmctld up? see `scontrol ping`"
_LATER = "submit again later; `sinfo -R` tells why nodes are down, `sinfo` which partitions take jobs"


class _Known(NamedTuple):
    """One refusal: a part of sbatch's words in lower case, what they mean, and the way out."""

    words: str
    meaning: str
    fix: str


# The words are Slurm 22.05's to 25.05's (slurm_errno.c, and sbatch's own of its options), the special first.
_KNOWN = (
    _Known(
        "violates accounting/qos policy",
        "the job is beyond a limit of its account or QOS: on jobs, on size, or on time",
        "wait for other jobs, or ask for less; `sacctmgr show assoc user=$USER` and `sacctmgr show qos` tell "
        "the limits",
    ),
    _Known(
        "invalid account",
        "Slurm does not know the account, or it may not be used in this partition",
        "correct cluster.slurm.account; `sacctmgr show assoc user=$USER` lists yours",
    ),
    _Known(
        "group not permitted to use this partition",
        "the partition is for other groups of users",
        "correct cluster.slurm.partition; `scontrol show partition` tells who may use which",
    ),
    _Known(
        "invalid partition",
        "the cluster has no partition of that name",
        "correct cluster.slurm.partition; `sinfo` lists them",
    ),
    _Known(
        "no partition specified",
        "no partition was named, and the cluster has none for such jobs",
        "set cluster.slurm.partition; `sinfo` lists them",
    ),
    _Known(
        "invalid qos",
        "the cluster has no such QOS, or the account may not use it",
        "correct cluster.slurm.qos; `sacctmgr show assoc user=$USER format=qos` lists yours",
    ),
    _Known(
        "more processors requested",
        "the job asks for more CPUs than the nodes of the partition have",
        "ask for fewer cluster.nodes or cluster.slurm.cpus_per_task",
    ),
    _Known(
        "node count specification invalid",
        "the partition does not take a job of so many nodes",
        "ask for fewer cluster.nodes, or for another partition",
    ),
    _Known(
        "node configuration is not available",
        "no node, or not enough of them, have the CPUs, memory, GPUs and features that the job asks for",
        "ask for less in cluster.slurm, or for another partition; see `sinfo -N -l`",
    ),
    _Known(
        "partition configuration not available",
        "the partition does not allow what the job asks for: its nodes or its time, or it is down",
        "compare cluster.nodes and cluster.slurm.time with `scontrol show partition`",
    ),
    _Known("required partition not available", "the partition takes no jobs at the moment", _LATER),
    _Known("required node not available", "a node that the job names is down, drained or reserved", _LATER),
    _Known(
        "nodes not in this partition",
        "the job names nodes that are not in its partition",
        "correct cluster.include, or cluster.slurm.partition; `sinfo -N` lists which node is where",
    ),
    _Known(
        "invalid generic resource",
        "no node has GPUs, or other generic resources, of that kind or number",
        "correct cluster.slurm.gres or gpus_per_node; see `sinfo -o '%N %G'`",
    ),
    _Known(
        "invalid node name",
        "the cluster has no node of that name",
        "correct the names in cluster.include or cluster.exclude; `sinfo -N` lists them",
    ),
    _Known(
        "invalid feature",
        "no node has that feature",
        "correct cluster.slurm.constraint; `sinfo -o '%N %f'` lists what nodes have",
    ),
    _Known(
        "invalid license",
        "the cluster has no such licence, or not so many",
        "correct the licences in cluster.slurm; `scontrol show licenses` lists them",
    ),
    _Known(
        "reservation",
        "the reservation does not exist, is not for this user, or is not on now",
        "correct cluster.slurm.reservation; `scontrol show reservation` lists them",
    ),
    _Known(
        "memory",
        "no node has so much memory for a job",
        "ask for less memory in cluster.slurm; `sinfo -N -o '%N %m'` tells what nodes have, in MB",
    ),
    _Known(
        "time limit",
        "the time that the job asks for is longer than the partition allows, or none is given",
        "ask for less cluster.slurm.time; `sinfo` shows the limits",
    ),
    _Known("unable to contact slurm controller", "Slurm's controller cannot be reached from here", _UP),
    _Known(
        "socket timed out",
        "Slurm's controller was too slow to answer: it may have taken the job nevertheless",
        "look at `squeue --me` before you submit it again",
    ),
    _Known("slurm_load", "Slurm's controller cannot be reached from here", _UP),
    _Known(
        "is not installed on this machine",
        "this machine is no login node of the cluster",
        "submit on a login node, or set cluster.login: user@host",
    ),
)


def said_by(words: str) -> str:
    """Return what sbatch said in one line: without its own name, each line once."""
    return "; ".join(dict.fromkeys(line for line in map(_cleaned, words.splitlines()) if line))


def meaning_of(said: str) -> tuple[str, str]:
    """Return what a refusal means, and what to do; "" and "" where sbatch's words are not known."""
    lower = said.lower()
    known = next((one for one in _KNOWN if one.words in lower), None)
    return ("", "") if known is None else (known.meaning, known.fix)


def _cleaned(line: str) -> str:
    return _NOISE.sub("", line.strip())
