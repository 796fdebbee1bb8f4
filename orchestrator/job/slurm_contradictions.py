"""What the keys of a Slurm job say together: wrong combinations, found before anything is submitted.

The checks read the raw data; a value that its own check refuses is passed over here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.job import slurm_grammar as grammar
from orchestrator.job.durations import parse_duration
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Read = TypeVar("_Read")
Found = tuple[tuple[str | int, ...], str, str]
"""Key path, what is wrong, and the fix."""

_SLURM = ("cluster", "slurm")
_ELSEWHERE = {
    "nodes": "cluster.nodes",
    "job-name": "name",
    "chdir": "train.workdir",
    "no-requeue": "cluster.slurm.requeue: false",
    "signal": "cluster.slurm.signal_before",
    "nodefile": "cluster.include",
}
_OURS = (
    "ntasks",
    "ntasks-per-node",
    "tasks-per-node",
    "output",
    "error",
    "open-mode",
    "export-file",
    "wrap",
    "parsable",
    "wait",
    "test-only",
    "help",
    "usage",
    "version",
)
_OUR_SRUN = (
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "nodelist",
    "cpus-per-task",
    "distribution",
    "kill-on-bad-exit",
    "multi-prog",
    "input",
    "output",
    "error",
    "label",
)


def slurm_contradictions(data: dict[str, Any], keys: frozenset[str]) -> Iterator[Found]:
    """Yield what cannot be in a job file with backend slurm.

    Args:
        data: the job file; `cluster` is a section.
        keys: the keys of `cluster.slurm`.
    """
    cluster = data["cluster"]
    slurm = cluster.get("slurm")
    slurm = slurm if isinstance(slurm, dict) else {}
    yield from _hosts(cluster, slurm)
    yield from _gpus(cluster, slurm)
    yield from _times(data, slurm)
    yield from _options(slurm, keys)
    yield from _srun(slurm)
    if "array" in slurm and "matrix" in data:
        what = "array and matrix both make a job array"
        yield (*_SLURM, "array"), what, "keep one: {array_index} is the number of a point in both"
    if cluster.get("shared_disk") is False:
        what = "Slurm's hosts have to see the run directory under the same path"
        yield ("cluster", "shared_disk"), what, "put run_root on a shared disk and remove shared_disk"


def _hosts(cluster: dict[str, Any], slurm: dict[str, Any]) -> Iterator[Found]:
    if "nodes" not in cluster and not cluster.get("include"):
        what = "Slurm has to be told how many hosts to give"
        yield ("cluster",), what, "add cluster.nodes, or name the hosts with cluster.include"
    for theirs, ours in (("nodelist", "include"), ("exclude", "exclude")):
        if theirs in slurm and cluster.get(ours):
            what = f"cluster.{ours} is given too, and both become --{theirs}"
            yield (*_SLURM, theirs), what, f"keep cluster.{ours}"
    names = _read(grammar.node_names, slurm.get("nodelist"))
    nodes = cluster.get("nodes")
    if names and isinstance(nodes, int) and len(names) > nodes:
        what = f"names {counted(len(names), 'host')}, and cluster.nodes asks for {nodes}"
        yield (*_SLURM, "nodelist"), what, f"name at most {nodes}, or raise cluster.nodes"


def _gpus(cluster: dict[str, Any], slurm: dict[str, Any]) -> Iterator[Found]:
    by_node = _read(grammar.gpu_items, slurm.get("gpus_per_node")) or ()
    by_gres = tuple(each for each in _read(grammar.gres_items, slurm.get("gres")) or () if each.name == "gpu")
    if by_node and by_gres and {(e.type, e.count) for e in by_node} != {(e.type, e.count) for e in by_gres}:
        what = f"asks for other GPUs than gres: {slurm['gres']}"
        yield (*_SLURM, "gpus_per_node"), what, "keep one of the two"
        return
    gpus, slots = sum(each.count for each in by_gres or by_node), cluster.get("slots")
    unreadable = ("gres" in slurm and "gpu" in str(slurm["gres"])) or "gpus_per_node" in slurm
    if gpus and isinstance(slots, int) and slots > gpus:
        what = f"is more than the {counted(gpus, 'GPU')} of each host that Slurm is asked for"
        yield ("cluster", "slots"), what, f"ask for at most {counted(gpus, 'slot')}, or for more GPUs"
    if not gpus and "slots" not in cluster and not unreadable:
        what = "neither cluster.slots nor a number of GPUs says how many ranks a host has"
        yield (
            ("cluster",),
            what,
            "add cluster.slurm.gpus_per_node: 8, or cluster.slots where no GPU is needed",
        )


def _times(data: dict[str, Any], slurm: dict[str, Any]) -> Iterator[Found]:
    limit = _read(grammar.slurm_seconds, slurm.get("time"))
    if limit is None:
        return
    before = _seconds(slurm.get("signal_before", 120.0))
    grace = _seconds(data.get("grace", 10.0))
    if before and grace is not None and before <= grace:
        what = f"Slurm would end the run {before:g} seconds later, and ranks have {grace:g} seconds to save"
        yield (*_SLURM, "signal_before"), what, "give more than grace, for what comes after it"
    if before is not None and before >= limit:
        key = "signal_before" if "signal_before" in slurm else "time"
        what = f"the run would be told to save {before:g} seconds before a limit of {limit:g} seconds"
        yield (*_SLURM, key), what, "ask for more time, or give a smaller cluster.slurm.signal_before"


def _options(slurm: dict[str, Any], keys: frozenset[str]) -> Iterator[Found]:
    extra = slurm.get("extra")
    for name in extra if isinstance(extra, dict) else ():
        option, where = name.replace("_", "-"), (*_SLURM, "extra", name)
        if option in _ELSEWHERE:
            yield where, f"--{option} is set from another key", f"use {_ELSEWHERE[option]}"
        elif option in _OURS:
            yield where, f"--{option} is for the run itself to set", "remove it"
        elif option.replace("-", "_") in keys:
            key = option.replace("-", "_")
            yield where, "has a key of its own, which is checked", f"use cluster.slurm.{key}"
        elif option in ("mem-per-cpu", "mem-per-gpu") and "mem" in slurm:
            yield where, "Slurm takes it or mem, not both", "keep one of them"


def _srun(slurm: dict[str, Any]) -> Iterator[Found]:
    words = slurm.get("srun_args")
    for index, word in enumerate(words if isinstance(words, list) else ()):
        option = str(word).removeprefix("--").partition("=")[0]
        if str(word).startswith("--") and option in _OUR_SRUN:
            what = f"--{option} is set from the plan: one task on each host"
            yield (*_SLURM, "srun_args", index), what, "remove it"


def _read(reader: Callable[[str], _Read], value: Any) -> _Read | None:
    """Return what `reader` makes of a text; None when there is none, or a wrong one."""
    try:
        return reader(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _seconds(value: Any) -> float | None:
    try:
        return parse_duration(value)
    except ValueError:
        return None
