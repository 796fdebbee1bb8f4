"""From the `cluster` section of a job file to the hosts and slots a run uses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import JobFileError, Problem
from orchestrator.hosts import HostPool, local_pool, read_hostfile
from orchestrator.hosts.filters import apply_filters

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.hosts import Host


class PoolSource(Protocol):
    """The part of a cluster section that decides on hosts."""

    @property
    def backend(self) -> str:
        """Return local, pdsh, ssh or slurm."""

    @property
    def hostfile(self) -> Path | None:
        """Return the hostfile, as a path that can be opened."""

    @property
    def nodes(self) -> int | None:
        """Return how many hosts to use, from the first on."""

    @property
    def slots(self) -> int | None:
        """Return how many slots of each host to use, from its first on."""

    @property
    def include(self) -> str | None:
        """Return the include filter."""

    @property
    def exclude(self) -> str | None:
        """Return the exclude filter."""


def resolve_pool(cluster: PoolSource) -> HostPool:
    """Return the hosts and slots a job uses: hostfile, then filter, then `nodes` and `slots`.

    Raises:
        HostfileError: the hostfile is missing or wrong.
        FilterError: the include or exclude filter is wrong.
        JobFileError: there is no hostfile where one is needed, or fewer hosts or slots than asked for.
    """
    chosen = apply_filters(full_pool(cluster), cluster.include, cluster.exclude)
    if cluster.hostfile is None:
        return chosen
    return _first_slots(_first_hosts(chosen, cluster.nodes), cluster.slots)


def full_pool(cluster: PoolSource) -> HostPool:
    """Return every host a job could use, before `include`, `exclude`, `nodes` and `slots` take some away.

    Raises:
        HostfileError: the hostfile is missing or wrong.
        JobFileError: there is no hostfile where one is needed.
    """
    if cluster.hostfile is not None:
        return read_hostfile(cluster.hostfile, "cluster.hostfile")
    if cluster.backend == "local":
        return local_pool(cluster.nodes or 1, cluster.slots or 1)
    if cluster.backend == "slurm":
        what = "the hosts are known only once Slurm has given them"
        raise JobFileError(Problem(what, "cluster.backend", "slurm", "give a hostfile to see a likely pool"))
    what = f"the {cluster.backend} backend needs a hostfile"
    raise JobFileError(
        Problem(what, "cluster.hostfile", None, "set cluster.hostfile to a file of HOST slots=N lines")
    )


def _first_hosts(pool: HostPool, nodes: int | None) -> HostPool:
    if nodes is None:
        return pool
    if nodes > len(pool.hosts):
        left = "only 1 host is" if len(pool.hosts) == 1 else f"only {len(pool.hosts)} hosts are"
        what = f"{left} left by the hostfile and the filters"
        raise JobFileError(Problem(what, "cluster.nodes", str(nodes), f"ask for at most {len(pool.hosts)}"))
    return HostPool(pool.hosts[:nodes])


def _first_slots(pool: HostPool, slots: int | None) -> HostPool:
    if slots is None:
        return pool
    short = [host for host in pool.hosts if len(host.slots) < slots]
    if short:
        most = min(len(host.slots) for host in short)
        what = f"host {short[0].name} has {_slots(len(short[0].slots))}{_more(short)}"
        fix = f"ask for at most {most}, or exclude what is too small"
        raise JobFileError(Problem(what, "cluster.slots", str(slots), fix))
    return HostPool(tuple(replace(host, slots=host.slots[:slots]) for host in pool.hosts))


def _slots(count: int) -> str:
    return "1 slot" if count == 1 else f"{count} slots"


def _more(hosts: list[Host]) -> str:
    return f", and {len(hosts) - 1} more hosts have too few" if len(hosts) > 1 else ""
