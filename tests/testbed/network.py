"""Namespaces, cables and the switch between them.

The switch has a namespace of its own, named like the bed (`ob42`), and holds one end of every cable: `p0` is
the submit side's, `pK` the K-th host's (`ob42-K`). So the firewall and the bridge settings of the machine
(Docker's FORWARD rule, for one) do not reach into the bed, and the submit side has a cable to pull too.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbed.requirements import TestbedError, call, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACES = Path("/run/netns")
MOST_HOSTS = 200


@dataclass(frozen=True, slots=True)
class Network:
    """Names and addresses of one bed's network; all follow from its number.

    Attributes:
        number: 1 to 254, of which no two beds of a machine have the same.
        size: number of hosts.
        jump: the submit side's cable leads to host 1 only, which has a second card (`eth1`) for it.
    """

    number: int
    size: int
    jump: bool = False

    @property
    def name(self) -> str:
        """Return the name of the switch's namespace and of the submit side's interface."""
        return f"ob{self.number}"

    def namespace(self, index: int) -> str:
        """Return the name of a host's network namespace."""
        return f"{self.name}-{index}"

    @property
    def submit_address(self) -> str:
        """Return the submit side's own address, where hosts reach it."""
        return f"10.77.{self.number}.254"

    def inner_address(self, index: int) -> str:
        """Return the address by which hosts know a host."""
        return f"10.{78 if self.jump else 77}.{self.number}.{index}"

    def outer_address(self, index: int) -> str:
        """Return the address by which ssh on the submit side (or on the jump host) reaches a host."""
        return f"10.77.{self.number}.{index}" if index == 1 else self.inner_address(index)

    def inner_address6(self, index: int) -> str:
        """Return the IPv6 address of a host, among the hosts."""
        return f"fd77:{self.number:x}:{1 if self.jump else 0}::{index:x}"

    @property
    def submit_address6(self) -> str:
        """Return the submit side's IPv6 address."""
        return f"fd77:{self.number:x}:0::fe"


def has_ipv6() -> bool:
    """Say whether the kernel speaks IPv6 at all."""
    return Path("/proc/net/if_inet6").exists()


def claim(size: int, *, jump: bool) -> Network:
    """Take a number that no other bed has: creating the switch's namespace is the lock."""
    if not 1 <= size <= MOST_HOSTS:
        raise TestbedError(f"a bed has 1 to {MOST_HOSTS} hosts, not {size}")
    used = call(["ip", "-o", "-4", "address"]) + call(["ip", "-4", "route"])
    for number in _numbers():
        network = Network(number, size, jump)
        if re.search(rf"\b10\.7[78]\.{network.number}\.", used):
            continue
        argv = [tool("ip"), "netns", "add", network.name]
        if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
            return network
    raise TestbedError(
        "no free subnet in 10.77.0.0/16: too many beds are up (`python -m tests.testbed down --all`)"
    )


def _numbers() -> list[int]:
    """Return the numbers to be tried, in an order that differs from process to process.

    Of test workers that run side by side (pytest-xdist's variables) each has its own: a test that sees what
    is left of a bed must not see another worker's, which has just taken the name.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(1 + worker, 255, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    start = os.getpid() % len(own)
    return [*own[start:], *own[:start]]


def inode(namespace: str) -> int:
    """Return the inode by which /proc/PID/ns/net names this namespace."""
    return (NAMESPACES / namespace).stat().st_ino


@contextlib.contextmanager
def held(namespaces: list[str]) -> Iterator[list[int]]:
    """Keep namespaces for the length of the block, even removed ones; yield their inodes.

    The kernel gives the inode of one that is gone to the next that is made, another test worker's too.
    """
    with contextlib.ExitStack() as stack:
        yield [
            os.fstat(stack.enter_context((NAMESPACES / name).open()).fileno()).st_ino for name in namespaces
        ]


def batch(lines: list[str], namespace: str | None = None) -> None:
    """Run many `ip` commands in one process."""
    where = ["-n", namespace] if namespace else []
    call(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def build(network: Network) -> None:
    """Create the hosts' namespaces, all cables and the switch; hosts set their addresses themselves."""
    name, lines = network.name, []
    lines.append(f"link add name {name} type veth peer name p0 netns {name}")
    for k in range(1, network.size + 1):
        lines.append(f"netns add {network.namespace(k)}")
        lines.append(_cable(network, "eth0", k, f"p{k}"))
    if network.jump:
        lines.append(_cable(network, "eth1", 1, "p1o"))
        # Without this, packets for a hidden host would wander to the machine's default gateway.
        lines.append(f"route add unreachable 10.78.{network.number}.0/24")
    lines.append(f"address add {network.submit_address}/24 dev {name}")
    if has_ipv6():
        lines.append(f"address add {network.submit_address6}/64 dev {name} nodad")
    lines.append(f"link set {name} up")
    batch(lines)
    batch(_switch_lines(network), name)


def _cable(network: Network, card: str, index: int, port: str) -> str:
    host = network.namespace(index)
    return f"link add name {card} netns {host} type veth peer name {port} netns {network.name}"


def _switch_lines(network: Network) -> list[str]:
    lan = [f"p{k}" for k in range(1, network.size + 1)]
    bridges = {"lan": lan, "wan": ["p0", "p1o"]} if network.jump else {"lan": ["p0", *lan]}
    lines = []
    for bridge, ports in bridges.items():
        lines += [f"link add name {bridge} type bridge", f"link set {bridge} up"]
        lines += [f"link set {port} master {bridge} up" for port in ports]
    return lines


def ports(network: Network, index: int) -> list[str]:
    """Return the switch's ports of a host (0: of the submit side)."""
    return ["p1", "p1o"] if network.jump and index == 1 else [f"p{index}"]


def set_cable(network: Network, index: int, *, plugged: bool) -> None:
    """Pull or plug the cable of a host (0: of the submit side), at the switch."""
    state = "up" if plugged else "down"
    batch([f"link set {port} {state}" for port in ports(network, index)], network.name)


def set_rate(network: Network, index: int, rate: str | None) -> None:
    """Limit a host's link to a rate such as `100mbit`, in both directions; None lifts the limit."""
    ends = [(network.name, port) for port in ports(network, index)]
    ends += [
        (network.namespace(index), "eth1" if port == "p1o" else "eth0") for port in ports(network, index)
    ]
    for namespace, card in ends:
        where = ["tc", "-n", namespace, "qdisc"]
        if rate is None:
            with contextlib.suppress(TestbedError):  # there was no limit
                call([*where, "del", "dev", card, "root"])
        else:
            shape = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
            call([*where, "replace", "dev", card, "root", *shape])


def remove(network: Network) -> None:
    """Remove what `claim` and `build` made, or what there is of it."""
    with contextlib.suppress(TestbedError):
        batch([f"link del {network.name}"])
    if network.jump:
        with contextlib.suppress(TestbedError):
            batch([f"route del unreachable 10.78.{network.number}.0/24"])
    batch([f"netns del {name}" for name in namespaces(network)])


def namespaces(network: Network) -> list[str]:
    """Return the bed's namespaces that exist; the switch's comes last, as it is the lock on the number."""
    names = [network.namespace(k) for k in range(1, network.size + 1)] + [network.name]
    return [name for name in names if (NAMESPACES / name).exists()]
