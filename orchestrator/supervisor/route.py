"""Where the ranks meet: the master's address and every host's interface on the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.agent import network

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.supervisor.host_state import HostState

PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Route:
    """The master's address and port, and the interface of each host (by name, "" where unknown)."""

    address: str
    port: int
    interfaces: dict[str, str]


def loopback(plan: LaunchPlan, port: int) -> Route | None:
    """Return the route of a run that never leaves one machine, None for any other."""
    if plan.backend != "local" and len(plan.hosts) > 1:
        return None
    interface = plan.interface or "lo"
    return Route(plan.master_addr or "127.0.0.1", port, {host.name: interface for host in plan.hosts})


def candidates(plan: LaunchPlan, master: HostState) -> list[str]:
    """Return the addresses at which the master may be reached from other hosts, likeliest first.

    The user's word comes first; then the addresses of the interface the user named; then the address
    by which the submit host reached the master. Loopback is never one: a host name that resolves to
    127.0.1.1, as Debian writes it into /etc/hosts, would send every other host to itself.
    """
    if plan.master_addr:
        return [plan.master_addr]
    known: list[list[str]] = (master.ready or {}).get("addresses", [])
    usable = [(address, name) for address, name in known if not network.is_loopback(address)]
    if plan.interface:
        usable = [(address, name) for address, name in usable if name == plan.interface] or usable
    return list(dict.fromkeys(address for address, _ in usable))


def start_message(plan: LaunchPlan, state: HostState, route: Route) -> dict[str, Any]:
    """Return what a host's agent needs to start its ranks."""
    host = state.plan
    return {
        "t": "start",
        "run_id": plan.run_id,
        "node_rank": host.index,
        "nnodes": len(plan.hosts),
        "first_rank": host.first_rank,
        "local_world_size": len(host.slots),
        "world_size": plan.world_size,
        "master_addr": route.address,
        "master_port": route.port,
        "interface": plan.interface or route.interfaces.get(host.name, ""),
        "simulated": plan.backend == "local",
    }
