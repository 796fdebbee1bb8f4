"""Which hosts `accelerate launch` uses, and what starts its ranks there, as the section `cluster`.

Source: `prepare_deepspeed_cmd_env` in `utils/launch.py` of Accelerate 1.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.hosts import Hosts, place, pool_of, say_size

if TYPE_CHECKING:
    from orchestrator.importing.accelerate_read import Settings
    from orchestrator.importing.draft import Draft

_RANK = "every host gets its rank from its place among the hosts"
_MPI = ("openmpi", "mvapich", "mpich", "impi")
LAUNCHERS = ("pdsh", "standard", *_MPI, "nossh", "slurm")
"""Every deepspeed_multinode_launcher there is."""


def _count(settings: Settings, key: str, default: int | None) -> int | None:
    value = settings.get(key)
    if value is None:
        return default
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise JobFileError(Problem("expected a number of 1 or more", settings.where(key), str(value)))
    return number


def place_hosts(settings: Settings, draft: Draft, *, deepspeed: bool) -> None:
    """Write the section `cluster`.

    Raises:
        JobFileError: the numbers do not fit each other, or the launcher is none.
    """
    machines = _count(settings, "num_machines", 1) or 1
    if settings.get("num_processes") == -1:
        settings.values["num_processes"] = None  # accelerate config writes it for Slurm
    processes = _count(settings, "num_processes", None)
    if processes is not None and processes % machines:
        what = f"{processes} processes cannot be spread evenly over {machines} machines"
        fix = f"use a multiple of {machines}; Accelerate drops the remainder"
        raise JobFileError(Problem(what, settings.where("num_processes"), str(processes), fix))
    slots = None if processes is None else processes // machines
    hosts = Hosts(settings.where("num_processes"), "local", machines, slots)
    if machines > 1:
        _several(settings, draft, hosts, deepspeed=deepspeed)
    else:
        _unused(settings, draft)
        slots = slots or len(_gpu_ids(settings)) or None
        hosts.slots = slots
    place(draft, hosts)
    if machines > 1:
        say_size(draft, hosts)
        if settings.get("machine_rank") is not None:
            draft.drop(settings.where("machine_rank"), _RANK)
    _gpus(settings, draft, machines)


def place_in_slurm(settings: Settings, draft: Draft) -> None:
    """Write the ranks of each host; what Slurm knows better is named."""
    machines = _count(settings, "num_machines", draft.get("cluster.nodes") or 1) or 1
    processes = None if settings.get("num_processes") == -1 else _count(settings, "num_processes", None)
    if processes is not None:
        if processes % machines:
            what = f"{processes} processes cannot be spread evenly over {machines} machines"
            fix = f"use a multiple of {machines}"
            raise JobFileError(Problem(what, settings.where("num_processes"), str(processes), fix))
        draft.carry(settings.where("num_processes"), "cluster.slots", processes // machines)
    _drop_address(settings, draft)
    if settings.get("machine_rank") not in (None, 0):
        draft.drop(settings.where("machine_rank"), _RANK)
    for key in ("hostfile", "inclusion_filter", "exclusion_filter", "multinode_launcher"):
        if settings.get(f"deepspeed_{key}") is not None:
            draft.drop(settings.where(f"deepspeed_{key}"), "Slurm gives the hosts, and srun starts them")


def _drop_address(settings: Settings, draft: Draft) -> None:
    for key in ("main_process_ip", "main_process_port"):
        if settings.get(key) not in (None, 0):
            draft.drop(settings.where(key), "it is found out when Slurm has given the hosts")


def _gpu_ids(settings: Settings) -> list[str]:
    value = settings.get("gpu_ids")
    return [] if value in (None, "all") else str(value).replace(" ", "").split(",")


def _gpus(settings: Settings, draft: Draft, machines: int) -> None:
    """Carry gpu_ids: as CUDA_VISIBLE_DEVICES, which is what Accelerate makes of it."""
    ids = _gpu_ids(settings)
    if not ids:
        return
    where = settings.where("gpu_ids")
    pool = pool_of(draft.get("cluster.hostfile")) if machines > 1 else None
    if pool is not None and all(number.isdigit() for number in ids) and not draft.get("cluster.exclude"):
        names = [host.name for host in pool.hosts[:machines]]
        draft.data["cluster"].pop("slots", None)
        draft.carry(where, "cluster.include", "@".join(f"{name}:{','.join(ids)}" for name in names))
    elif machines > 1:
        what = "name the slots in cluster.include, as in node1:0,1@node2:0,1, once the hostfile is there"
        draft.drop(where, what)
    else:
        draft.carry(where, "train.env.CUDA_VISIBLE_DEVICES", ",".join(ids))


def _unused(settings: Settings, draft: Draft) -> None:
    for key in ("hostfile", "inclusion_filter", "exclusion_filter", "multinode_launcher"):
        name = f"deepspeed_{key}"
        if settings.get(name) is not None:
            draft.drop(settings.where(name), "there is one machine, where Accelerate ignores it too")


def _several(settings: Settings, draft: Draft, hosts: Hosts, *, deepspeed: bool) -> None:
    """Fill in what starts the ranks on several machines."""
    launcher = str(settings.get("deepspeed_multinode_launcher") or "pdsh") if deepspeed else "standard"
    where = settings.where("deepspeed_multinode_launcher")
    hosts.source = settings.where("num_machines")
    file = settings.get("deepspeed_hostfile")
    hosts.hostfile = None if file is None else draft.path(str(file))
    if launcher == "pdsh" or launcher in _MPI:
        hosts.backend = "pdsh"
    elif launcher in ("standard", "nossh"):
        hosts.backend = "ssh"
    elif launcher == "slurm":
        hosts.backend, hosts.hostfile = "slurm", None
    else:
        what = "is no launcher that Accelerate or DeepSpeed knows"
        raise JobFileError(Problem(what, where, launcher, f"use one of {', '.join(LAUNCHERS)}"))
    _say_launcher(settings, draft, launcher, where)
    _filters(settings, draft, hosts, launcher)


def _say_launcher(settings: Settings, draft: Draft, launcher: str, where: str) -> None:
    if launcher == "pdsh":
        draft.say(where, "cluster.backend: pdsh")
        if settings.get("deepspeed_hostfile") is None:
            draft.change(
                where,
                "Accelerate would hand DeepSpeed a hostfile named None, and train on one machine",
            )
    elif launcher in _MPI:
        what = f"cluster.backend: pdsh: {launcher} is not used; ranks meet over train.master_addr, and NCCL"
        draft.change(where, f"{what} moves the data as before; options of mpirun are gone")
    elif launcher == "standard":
        what = (
            "cluster.backend: ssh: one command starts every host, where Accelerate had to be started on each"
        )
        draft.change(where, what)
    elif launcher == "nossh":
        what = "cluster.backend: ssh: one command starts every host over ssh; there is no --node_rank to give"
        draft.change(where, f"{what}, and where ssh is not allowed use backend: slurm")
    else:
        what = "cluster.backend: slurm: sbatch asks for the hosts, and srun starts one agent on each"
        draft.change(where, f"{what}; DeepSpeed's own slurm launcher sets no ranks")
        if settings.get("deepspeed_hostfile") is not None:
            draft.drop(settings.where("deepspeed_hostfile"), "Slurm gives the hosts")


def _filters(settings: Settings, draft: Draft, hosts: Hosts, launcher: str) -> None:
    """Fill in the filters; with one Accelerate passes no number of processes on, so slots decide."""
    exclude, include = (settings.get(f"deepspeed_{name}_filter") for name in ("exclusion", "inclusion"))
    if launcher == "standard":
        for name in ("deepspeed_exclusion_filter", "deepspeed_inclusion_filter"):
            if settings.get(name) is not None:
                draft.drop(settings.where(name), "Accelerate ignores it with this launcher")
        return
    if exclude and include:
        draft.drop(
            settings.where("deepspeed_inclusion_filter"), "Accelerate passes the exclusion filter only"
        )
        include = None
    hosts.include, hosts.exclude = include, exclude
    if (include or exclude) and hosts.backend != "slurm":
        hosts.nodes = hosts.slots = None
        what = "the filter and the hostfile decide on hosts and ranks, as they do under Accelerate"
        draft.change(settings.where("num_processes"), what)


def carry_address(settings: Settings, draft: Draft) -> None:
    """Write the address and the port of rank 0, where they are said."""
    if draft.get("cluster.backend") == "slurm":
        _drop_address(settings, draft)
        return
    ip, port = settings.get("main_process_ip"), settings.get("main_process_port")
    if ip is not None:
        draft.carry(settings.where("main_process_ip"), "train.master_addr", str(ip))
    if port is not None and str(port) != "0":
        draft.carry(settings.where("main_process_port"), "train.master_port", _port(settings, port))


def _port(settings: Settings, port: Any) -> int:
    try:
        return int(str(port))
    except ValueError:
        where = settings.where("main_process_port")
        raise JobFileError(Problem("is no port", where, str(port), "give a number, as 29500")) from None
