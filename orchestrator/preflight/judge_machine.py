"""Checks of the machine: memory, limits of processes, what earlier runs left there. Pure."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from orchestrator.hosts.ranges import fold_names
from orchestrator.preflight.findings import Finding, fold_values, reference, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.preflight.case import Case

_LITTLE_MEMORY = 0.2  # of the host's memory: less is available, so something else runs there
_SPARE_FILES = 512  # open files of a rank besides its connections: libraries, data, checkpoints
_LOCKED = 64 << 20  # bytes; with less, InfiniBand cannot register what NCCL asks for


def memory(case: Case) -> Iterator[Finding]:
    """Tell hosts with little memory left, or with less than most have."""
    hosts = case.with_data("machine")
    totals = {name: round(host.probes["machine"]["memory"] / 2**30) for name, host in hosts.items()}
    usual = reference(totals) if totals else 0
    for name, host in hosts.items():
        said = host.probes["machine"]
        if said["available"] < _LITTLE_MEMORY * said["memory"]:
            what = f"{size_text(said['available'])} of {size_text(said['memory'])} memory is available"
            yield Finding(
                name, "memory", "warn", what, "see what runs there (ps --sort=-rss), or leave it out"
            )
        elif isinstance(usual, int) and totals[name] < 0.9 * usual:
            what = f"has {size_text(said['memory'])} of memory; most hosts have {usual} GiB"
            yield Finding(name, "memory", "warn", what, "offload and checkpoints must fit the smallest host")
        else:
            yield Finding(name, "memory", "ok")


def limits(case: Case) -> Iterator[Finding]:
    """Tell limits that a run of this size would hit: open files, locked memory for InfiniBand."""
    needed = case.plan.world_size * 2 + _SPARE_FILES
    unlimited = resource.RLIM_INFINITY
    for name, host in case.with_data("machine").items():
        said = host.probes["machine"]
        if said["files"] != unlimited and said["files"] < needed:
            what = f"a process may open {said['files']} files; {case.plan.world_size} ranks may need {needed}"
            fix = "add `ulimit -n 65536` to train.setup, or raise it in /etc/security/limits.conf"
            yield Finding(name, "limits", "warn", what, fix)
        if said["infiniband"] and said["locked"] != unlimited and said["locked"] < _LOCKED:
            what = f"a process may lock {size_text(said['locked'])} of memory, too little for InfiniBand"
            fix = (
                "set memlock unlimited in /etc/security/limits.conf (on Slurm: PropagateResourceLimitsExcept)"
            )
            yield Finding(name, "limits", "warn", what, fix)
        yield Finding(name, "limits", "ok")


def leftovers(case: Case) -> Iterator[Finding]:
    """Tell hosts on which processes of other runs of ours are: still running, or left behind."""
    for name, host in case.with_data("leftovers").items():
        said = host.probes["leftovers"]
        if said["count"]:
            runs = fold_names(sorted({process["run"] for process in said["processes"]}))
            pids = ", ".join(str(process["pid"]) for process in said["processes"][:5])
            several = f"{said['count']} processes of other runs are there ({runs}; pids {pids})"
            what = several if said["count"] > 1 else f"a process of another run is there ({runs}; pid {pids})"
            fix = "`orchestrate status RUN` tells whether it still runs; `orchestrate cancel RUN` ends it"
            yield Finding(name, "leftovers", "warn", what, fix)
        else:
            yield Finding(name, "leftovers", "ok")


def facts(case: Case) -> dict[str, str]:
    """Return CPUs and memory, folded over hosts."""
    hosts = [host.name for host in case.hosts]
    said = {name: host.probes["machine"] for name, host in case.with_data("machine").items()}
    shown = {n: f"{s['cpus']} CPUs, {round(s['memory'] / 2**30)} GiB of memory" for n, s in said.items()}
    return {"host": fold_values(shown, hosts)}
