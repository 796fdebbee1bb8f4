"""Who measures the network with whom: the rounds of a tournament, and each host's part of them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PORT = 29511
"""Where hosts await each other when nothing else is said."""
_ALL_PAIRS = 17  # up to so many hosts, all pairs are measured: at most 17 rounds of a few seconds
Round = list[tuple[str, str]]


@dataclass(frozen=True)
class Peer:
    """A host that takes part.

    Attributes:
        name: its name.
        address: where the others reach it.
        port: a port that is free there; hosts that share an address need different ones.
        interface: the one that leads to the others; "" takes the one that has the address.
        ranks: how many of its GPUs take part; 1 measures what one network card gives one process.
    """

    name: str
    address: str
    port: int = PORT
    interface: str = ""
    ranks: int = 1


def schedule(hosts: Sequence[str], most: int | None = None) -> list[Round]:
    """Return the rounds of a round-robin tournament: in each, every host meets at most one other.

    The circle method: the first host stays, the others move on one place a round. All rounds together have
    every pair once; with an odd number of hosts, one rests in each. A part of them
    begins with rounds 0, 1, 2, 4, 8: two that follow each other join all hosts to one network, so that no
    part of it is compared with itself alone.

    Args:
        hosts: names, in rank order.
        most: rounds wanted; default `rounds_for` of their number.
    """
    places: list[str | None] = [*hosts, *[None] * (len(hosts) % 2)]
    total = max(0, len(places) - 1)
    wanted = min(total, rounds_for(len(hosts)) if most is None else most)
    powers = [0, *(1 << power for power in range(total.bit_length()) if 1 << power < total)]
    numbers = list(dict.fromkeys([*powers, *range(total)]))[:wanted]
    return [_round(places, number) for number in sorted(numbers)]


def _round(places: Sequence[str | None], number: int) -> Round:
    fixed, *moving = places
    turned = [fixed, *moving[number:], *moving[:number]]
    half = len(turned) // 2
    pairs = zip(turned[:half], reversed(turned[half:]), strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def rounds_for(hosts: int) -> int:
    """Return how many rounds so many hosts need: all pairs for few; for many, log2 of them and two more.

    A host that is slow is slow in all of its rounds, a link in one of them. Six to twelve tell that apart.
    """
    return max(0, hosts - 1 + hosts % 2) if hosts <= _ALL_PAIRS else math.ceil(math.log2(hosts)) + 2


@dataclass(frozen=True)
class Measurement:
    """How all-reduces are measured.

    Attributes:
        token: a secret of this check, so that no other program's connection is taken for a host's.
        env: variables for the ranks, such as NCCL_IB_DISABLE.
        backend: nccl, gloo or tcp; "" takes nccl on hosts with GPUs, gloo without, tcp without torch.
        size: bytes of the tensor; less is sent where the time does not suffice for it.
        repeats: all-reduces of one measurement, of which the median counts.
        seconds: time for them, warming up and connecting not counted.
        patience: seconds after which a host that gives no sign of life is given up.
        start: seconds in which all hosts must have started and imported torch.
    """

    token: str
    env: Mapping[str, str] = field(default_factory=dict)
    backend: str = ""
    size: int = 64 << 20
    repeats: int = 5
    seconds: float = 2.0
    patience: float = 10.0
    start: float = 120.0

    def request(self) -> dict[str, Any]:
        """Return what of a request is the same for all hosts."""
        return {
            "token": self.token,
            "env": dict(self.env),
            "backend": self.backend,
            "bytes": self.size,
            "repeats": self.repeats,
            "seconds": self.seconds,
            "limit": 20 + 10 * self.seconds,
            "patience": self.patience,
            "start": self.start,
        }


def requests(
    peers: Sequence[Peer], how: Measurement, *, rounds: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return each host's request for the program `pairwise`, by name.

    Args:
        peers: all hosts, in rank order.
        how: what is measured, and in which time.
        rounds: how many; default `rounds_for`.
    """
    plans = _plans(peers, schedule([peer.name for peer in peers], rounds))
    return {
        peer.name: {
            **how.request(),
            "name": peer.name,
            "index": index,
            "address": peer.address,
            "port": peer.port,
            "ranks": peer.ranks,
            "interface": peer.interface,
            "rounds": plans[peer.name],
            "all": _all(peers, index) if len(peers) > 2 else None,
        }
        for index, peer in enumerate(peers)
    }


def _plans(peers: Sequence[Peer], rounds: Sequence[Round]) -> dict[str, list[dict[str, Any]]]:
    order = {peer.name: index for index, peer in enumerate(peers)}
    plans: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    for number, pairs in enumerate(rounds):
        for pair in pairs:
            first, second = sorted(pair, key=order.__getitem__)
            for name, other in ((first, second), (second, first)):
                peer = peers[order[other]]
                meeting = {"round": number, "meeting": f"{number}/{first}", "leads": name == first}
                plans[name].append({**meeting, **_where(peer)})
    return plans


def _all(peers: Sequence[Peer], index: int) -> dict[str, Any]:
    """Return a host's part of the all-reduce of all hosts, which the first one leads."""
    last = {"meeting": "all", "leads": index == 0, **_where(peers[0])}
    return {**last, "names": [peer.name for peer in peers[1:]]} if index == 0 else last


def _where(peer: Peer) -> dict[str, Any]:
    return {"peer": peer.name, "address": peer.address, "port": peer.port}


def longest(hosts: int, *, seconds: float = 2.0, patience: float = 10.0, start: float = 120.0) -> float:
    """Return seconds after which a measurement of so many hosts has ended, even if one of them is dead."""
    meetings = rounds_for(hosts) + (hosts > 2)
    return start + 3 * patience + meetings * (4.0 + 2 * seconds)
