"""Which hosts a job gets: from what other tools were told of machines, processes and hostfiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import OrchestratorError
from orchestrator.importing.draft import located
from orchestrator.words import counted

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.importing.draft import Draft

PLACEHOLDER = "hostfile"
"""The hostfile that a job file names where its source names none."""


@dataclass
class Hosts:
    """What the source says of hosts.

    Attributes:
        source: where it says so, for the notes.
        backend: what starts things on them.
        nodes: how many hosts; None for all of the hostfile.
        slots: ranks of each; None for all that the hostfile gives.
        hostfile: as a draft holds a path; None where none is named.
        include: DeepSpeed's filter.
        exclude: likewise.
    """

    source: str
    backend: Literal["local", "pdsh", "ssh", "slurm"]
    nodes: int | None = None
    slots: int | None = None
    hostfile: str | Path | None = None
    include: str | None = None
    exclude: str | None = None


def place(draft: Draft, hosts: Hosts) -> None:
    """Write the section `cluster`."""
    draft.put("cluster.backend", hosts.backend)
    if hosts.backend in ("pdsh", "ssh"):
        _hostfile(draft, hosts)
    for key in ("nodes", "slots", "include", "exclude"):
        value = getattr(hosts, key)
        if value is not None and not (key == "nodes" and value == 1 and hosts.backend == "local"):
            draft.carry(hosts.source, f"cluster.{key}", value)
    if hosts.backend == "local" and hosts.slots is None:
        what = "because the number of ranks is not said: set it to the number of GPUs"
        draft.change(hosts.source, what, "cluster.slots", 1)


def _hostfile(draft: Draft, hosts: Hosts) -> None:
    if hosts.hostfile is not None:
        draft.carry(hosts.source, "cluster.hostfile", hosts.hostfile)
        return
    count = "the hosts" if hosts.nodes is None else f"the {counted(hosts.nodes, 'host')}"
    line = f"HOST slots={hosts.slots or 8}"
    what = f"which is for you to write: the names of {count} are not said; one line each: {line}"
    draft.change(hosts.source, what, "cluster.hostfile", draft.cwd / PLACEHOLDER)
    draft.comments["cluster.hostfile"] = f"one line for each of {count}: {line}"


def pool_of(hostfile: str | Path | None) -> HostPool | None:
    """Return what a hostfile names; None where it cannot be read here."""
    from orchestrator.hosts import read_hostfile  # noqa: PLC0415 - only where one is named

    if hostfile is None:
        return None
    try:
        return read_hostfile(located(hostfile))
    except OrchestratorError:
        return None


def say_size(draft: Draft, hosts: Hosts) -> None:
    """Say that a hostfile names more hosts than the source asks for."""
    pool = pool_of(hosts.hostfile)
    if pool is not None and hosts.nodes is not None and len(pool.hosts) > hosts.nodes:
        what = f"the hostfile names {len(pool.hosts)} hosts, and DeepSpeed's launcher starts them all; the"
        draft.change(hosts.source, f"{what} job starts the first {hosts.nodes}: remove cluster.nodes for all")
