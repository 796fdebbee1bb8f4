"""The section `cluster.slurm` of what sbatch and srun were asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.importing.slurm_options import CONTAINER, OURS, TASKS, TYPED

if TYPE_CHECKING:
    from orchestrator.importing.draft import Draft
    from orchestrator.importing.slurm_options import Request


def write_slurm(draft: Draft, request: Request) -> None:
    """Write the section `cluster` of a job on Slurm; `cluster.slots` may be there already."""
    draft.put("cluster.backend", "slurm")
    if draft.get("cluster.nodes") is None:
        nodes = request.nodes
        if "nodes" in request.options:
            _nodes(draft, request)
        else:
            draft.change("sbatch", "as many as its options come to", "cluster.nodes", nodes)
    for name, value in request.options.items():
        _option(draft, request, name, value)
    _sizes(draft, request)
    _container(draft, request)
    if request.step:
        draft.carry("srun", "cluster.slurm.srun_args", request.step)


def _nodes(draft: Draft, request: Request) -> None:
    where, text = request.places["nodes"], request.options["nodes"]
    draft.carry(f"{where}: --nodes", "cluster.nodes", request.nodes)
    if "-" in text:
        draft.change(f"{where}: --nodes", f"{text} is a range; the job runs on {request.nodes}")


def _option(draft: Draft, request: Request, name: str, value: str) -> None:
    where = f"{request.places.get(name, 'srun')}: --{name}"
    if name in TYPED:
        draft.carry(where, f"cluster.slurm.{name.replace('-', '_')}", value)
    elif name in OURS:
        draft.drop(where, OURS[name])
    elif name in ("requeue", "no-requeue"):
        draft.carry(where, "cluster.slurm.requeue", name == "requeue")
    elif name == "exclusive":
        draft.carry(where, "cluster.slurm.exclusive", value or True)
    elif name == "job-name":
        draft.carry(where, "name", value)
    elif name == "chdir":
        draft.carry(where, "train.workdir", draft.path(value))
    elif name == "signal":
        _signal(draft, where, value)
    elif name == "nodefile":
        draft.drop(where, "name the hosts in cluster.include")
    elif name not in ("nodes", "cpus-per-task", "gpus", "gpus-per-task", *TASKS, *CONTAINER):
        draft.carry(where, f"cluster.slurm.extra.{name}", value)


def _signal(draft: Draft, where: str, value: str) -> None:
    seconds = value.rpartition("@")[2] if "@" in value else "60"
    if seconds.isdigit():
        what = "when the run is told to save; the signal is the orchestrator's own"
        draft.change(where, what, "cluster.slurm.signal_before", int(seconds))


def _sizes(draft: Draft, request: Request) -> None:
    """Write slots, GPUs and cores of a host, which has one task of Slurm and not one for each rank."""
    tasks, where = request.tasks_per_node, request.places
    slurm = draft.get("cluster.slurm") or {}
    if request.gpus and not {"gres", "gpus_per_node"} & slurm.keys():
        name = "gpus" if "gpus" in request.options else "gpus-per-task"
        text = request.options[name].split(",")[0]
        kind = f"{text.rpartition(':')[0]}:" if ":" in text else ""
        what = f"from --{name}={request.options[name]}"
        draft.change(where[name], what, "cluster.slurm.gpus_per_node", f"{kind}{request.gpus}")
    if request.per_task:
        draft.change(where.get("ntasks-per-node", "srun"), "one for each task", "cluster.slots", tasks)
    elif draft.get("cluster.slots") is None and not request.gpus:
        what = "because neither GPUs nor processes of a host are said"
        draft.change("sbatch", what, "cluster.slots", tasks)
    cores = request.number("cpus-per-task")
    if cores is not None:
        source = f"{where['cpus-per-task']}: --cpus-per-task"
        if tasks == 1:
            draft.carry(source, "cluster.slurm.cpus_per_task", cores)
        else:
            what = f"for the one task of a host: {tasks} tasks of {cores}"
            draft.change(source, what, "cluster.slurm.cpus_per_task", cores * tasks)
    for name in TASKS:
        if name in request.options and not request.per_task and request.options[name] != "1":
            draft.drop(
                f"{where[name]}: --{name}", "srun starts one task on each host, which starts its ranks"
            )


def _container(draft: Draft, request: Request) -> None:
    for name, key in CONTAINER.items():
        if name in request.options:
            value: object = request.options[name]
            if key in ("mount_home", "writable"):
                value = not name.startswith("no-")
            elif key in ("mounts", "env"):
                value = re.split(r",(?=[/~$\w])", request.options[name])
            draft.carry(f"{request.places[name]}: --{name}", f"container.{key}", value)
