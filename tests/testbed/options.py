"""What kind of bed to bring up, and where its state is kept."""

from __future__ import annotations

import getpass
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Options:
    """What kind of bed.

    Attributes:
        nodes: number of hosts, 1 to 200.
        slots: slots per host in the hostfile: one number, or one per host.
        debian_hosts: each host's own /etc/hosts maps its own name to 127.0.1.1, as Debian's installer
            does; what binds or advertises the address of its own name is then unreachable.
        private_dirs: folders of the machine that every host sees empty and for itself (no shared disk).
        jump: only node1 can be reached from the submit side; the others through it (ProxyJump).
        banner: sshd sends a banner before the login.
        chatty: .bashrc prints on stdout and stderr in every session.
        ordinary_user: there is a user `orchtest` on hosts and submit side (see `Testbed.submit_command`).
        ports: sshd's port by host index, where it is not 22.
        slurm: the hosts are a Slurm cluster too (`Testbed.slurm`).
        accounting: that cluster keeps accounts in a database of its own (else `sacct` says it is disabled).
        cgroups: it confines jobs to cgroups of their own, where only the job's GPUs can be opened.
    """

    nodes: int = 2
    slots: int | tuple[int, ...] = 2
    debian_hosts: bool = True
    private_dirs: tuple[str, ...] = ()
    jump: bool = False
    banner: bool = False
    chatty: bool = False
    ordinary_user: bool = False
    ports: dict[int, int] = field(default_factory=dict)
    slurm: bool = False
    accounting: bool = False
    cgroups: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return options from what `asdict` and JSON made of them."""
        slots = data["slots"] if isinstance(data["slots"], int) else tuple(data["slots"])
        ports = {int(index): port for index, port in data["ports"].items()}
        return cls(**{**data, "slots": slots, "ports": ports, "private_dirs": tuple(data["private_dirs"])})

    def slots_of(self, index: int) -> int:
        """Return the number of slots of a host."""
        return self.slots if isinstance(self.slots, int) else self.slots[index - 1]


def default_base() -> Path:
    """Return where beds keep their state: one folder per user of the machine."""
    return Path(tempfile.gettempdir()) / f"orchestrate-testbed-{getpass.getuser()}"
