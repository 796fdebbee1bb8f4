"""One host of a plan, and how a pool of hosts becomes node ranks, ranks and GPUs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from orchestrator.hosts import HostPool

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """One host of the run.

    Attributes:
        name: as in the hostfile.
        index: node rank; 0 is the master.
        slots: slot ids on that host, as in the hostfile.
        first_rank: global rank of its first slot; its ranks are consecutive.
        devices: GPU indexes of the slots. They differ from `slots` only for simulated hosts, which
            share one machine's GPUs.
        address, user, port: for ssh, where they are not the name or the ssh configuration's.
    """

    name: str
    index: int
    slots: tuple[int, ...]
    first_rank: int
    devices: tuple[int, ...]
    address: str | None = None
    user: str | None = None
    port: int | None = None

    @property
    def file_name(self) -> str:
        """Return the name as it appears in file names: unusual characters percent-encoded."""
        return file_name(self.name)

    @property
    def alias(self) -> str:
        """Return the name for ssh, pdsh and node.sh: pdsh gives `:`, `@`, `[` and more its own meaning."""
        return self.name if _PLAIN.match(self.name) else f"host-{self.index}"

    @property
    def ssh_address(self) -> str | None:
        """Return what ssh has to be told to connect to; None when the alias will do."""
        return self.address or (None if self.alias == self.name else self.name)

    @property
    def ranks(self) -> range:
        """Return this host's global ranks."""
        return range(self.first_rank, self.first_rank + len(self.slots))


def file_name(host: str) -> str:
    """Return a host's name as it appears in file names; no two names become one."""
    quoted = quote(host, safe="").replace("~", "%7E")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def plan_hosts(pool: HostPool, *, simulated: bool) -> tuple[PlannedHost, ...]:
    """Give every host its node rank, its ranks and its GPUs.

    Simulated hosts take consecutive GPUs of the one machine: host 1's begin where host 0's end.
    """
    sizes = [len(host.slots) for host in pool.hosts]
    firsts = [0, *accumulate(sizes)]
    spans = [max(host.slots) + 1 for host in pool.hosts] if simulated else [0] * len(sizes)
    offsets = [0, *accumulate(spans)]
    return tuple(
        PlannedHost(
            name=host.name,
            index=index,
            slots=host.slots,
            first_rank=firsts[index],
            devices=tuple(slot + offsets[index] for slot in host.slots),
            address=host.address,
            user=host.user,
            port=host.port,
        )
        for index, host in enumerate(pool.hosts)
    )
