"""Ranks on hosts, and the hpZ groups they form.

Ranks are numbered host by host in the order of the pool, so a host's ranks are consecutive. Whether ZeRO++
fits them is for `orchestrator.rules` to say. Per-rank data is never built: a run of 100,000 ranks costs what
its hosts cost.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.hosts import HostPool


@dataclass(frozen=True, slots=True)
class RankMap:
    """Which ranks run where.

    Attributes:
        first_ranks: global rank of each host's local rank 0, one for each host, ascending.
        world_size: number of ranks over all hosts.
    """

    first_ranks: tuple[int, ...]
    world_size: int

    def ranks(self, index: int) -> range:
        """Return the global ranks of the host with this index; the local rank is the position in it."""
        last = index + 1 == len(self.first_ranks)
        return range(self.first_ranks[index], self.world_size if last else self.first_ranks[index + 1])

    def locate(self, rank: int) -> tuple[int, int]:
        """Return the host index and the local rank of a global rank.

        Raises:
            IndexError: no such rank.
        """
        if not 0 <= rank < self.world_size:
            raise IndexError(f"rank {rank} of {self.world_size}")
        index = bisect_right(self.first_ranks, rank) - 1
        return index, rank - self.first_ranks[index]


def rank_map(pool: HostPool) -> RankMap:
    """Return the rank map of a pool with at least one host."""
    ends = tuple(accumulate(len(host.slots) for host in pool.hosts))
    return RankMap((0, *ends[:-1]), ends[-1])


def first_ranks(pool: HostPool) -> tuple[int, ...]:
    """Return the first global rank of every host of a pool with at least one host."""
    return rank_map(pool).first_ranks


def hpz_groups(world_size: int, size: int) -> Iterator[range]:
    """Yield the hpZ groups as DeepSpeed forms them: consecutive ranks, `size` in each.

    Raises:
        ValueError: `size` is below 1 or does not divide the world, which DeepSpeed asserts.
    """
    if size < 1 or world_size % size:
        raise ValueError(f"{world_size} ranks do not divide into groups of {size}")
    return (range(start, start + size) for start in range(0, world_size, size))


def resolve_hpz(hpz: Literal["node"] | int, pool: HostPool) -> int:
    """Return the size of an hpZ group, in ranks: `node` is the number of slots of each host.

    Raises:
        JobFileError: `node`, and hosts have different numbers of slots.
    """
    if hpz != "node":
        return hpz
    uneven = uneven_hosts(pool)
    if uneven:
        fix = "give a number, or the same number of slots on every host (cluster.slots)"
        raise JobFileError(Problem(f"no single node size: {uneven}", "deepspeed.hpz", "node", fix))
    return len(pool.hosts[0].slots)


def uneven_hosts(pool: HostPool) -> str:
    """Name two hosts that differ in their number of slots; "" when all are alike."""
    first = pool.hosts[0]
    other = next((host for host in pool.hosts if len(host.slots) != len(first.slots)), None)
    if other is None:
        return ""
    return f"{first.name} has {len(first.slots)} and {other.name} has {len(other.slots)}"
