"""One pool in the words of the tools that start processes: DeepSpeed, pdsh and Slurm."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.errors import FilterError, Problem
from orchestrator.hosts.hostfile import HostPool
from orchestrator.hosts.ranges import fold_names

if TYPE_CHECKING:
    from orchestrator.hosts import Host


def deepspeed_filter(pool: HostPool, selected: HostPool) -> str:
    """Return what `deepspeed --include=` takes to choose `selected` out of a hostfile that holds `pool`.

    Args:
        pool: every host of the hostfile.
        selected: some of its hosts, each with all or some of its slots.

    Returns:
        `NAME[:SLOT,...]@...` in the order of the pool; "" when everything is selected.

    Raises:
        FilterError: a name holds `:` or `@`, which DeepSpeed's filters cannot say (an IPv6 address).
    """
    if selected == pool:
        return ""
    unsayable = [host.name for host in selected.hosts if ":" in host.name or "@" in host.name]
    if unsayable:
        what = "a DeepSpeed filter cannot name this host: : and @ have a meaning of their own there"
        fix = "give the host a plain name with address=, or use the whole hostfile"
        raise FilterError(Problem(what, "DeepSpeed filter", unsayable[0], fix))
    slots = {host.name: host.slots for host in pool.hosts}
    return "@".join(_spec(host, slots[host.name]) for host in selected.hosts)


def slot_filter(pool: HostPool) -> str:
    """Return the DeepSpeed filter that selects the pool from the hostfile we render.

    It is there for people and other tools: our agents take their slots from the plan. A name that
    DeepSpeed's filters cannot say (IPv6) therefore costs only the filter.
    """
    whole = HostPool(tuple(replace(host, slots=tuple(range(max(host.slots) + 1))) for host in pool.hosts))
    try:
        return deepspeed_filter(whole, pool)
    except FilterError:
        return ""


def pdsh_list(pool: HostPool) -> str:
    """Return what `pdsh -w` takes: names parted by commas, in rank order, which `%n` then follows.

    Raises:
        FilterError: pdsh would take what is before a single colon for a way to connect
            (`2001:db8::1`; pdsh 2.34 reads `fe80::1` right).
    """
    for host in pool.hosts:
        before, colon, after = host.name.partition(":")
        if colon and not after.startswith(":"):
            what = f"pdsh reads {before}: as a way to connect, not as part of an address"
            fix = "give the host a plain name with address=, or use the ssh backend"
            raise FilterError(Problem(what, "pdsh -w", host.name, fix))
    return ",".join(host.name for host in pool.hosts)


def slurm_nodelist(pool: HostPool) -> str:
    """Return what `srun --nodelist` takes, folded: `node[001-128],login`.

    Slurm sorts nodes by itself, so this says which hosts, never in which order.
    """
    return fold_names(host.name for host in pool.hosts)


def _spec(host: Host, slots: tuple[int, ...]) -> str:
    if host.slots == slots:
        return host.name
    return f"{host.name}:{','.join(map(str, host.slots))}"
