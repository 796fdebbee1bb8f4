"""Ranks on hosts, and whether ZeRO++ fits them.

Ranks are numbered host by host in the order of the pool, so a host's ranks are consecutive. DeepSpeed
builds hpZ groups (`zero_hpz_partition_size`) from consecutive ranks without looking at hosts, and takes the
devices of one host for its node size in quantized gradients (qgZ): neither warns when that goes wrong.
Per-rank data is never built: a run of 100,000 ranks costs what its hosts cost.
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

_HPZ = "deepspeed.hpz"
_QGZ = "deepspeed.quantized_gradients"


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


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """What is wrong with a topology (nothing may start), and what is only pointless."""

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


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
    uneven = _uneven(pool)
    if uneven:
        fix = "give a number, or the same number of slots on every host (cluster.slots)"
        raise JobFileError(Problem(f"no single node size: {uneven}", _HPZ, "node", fix))
    return len(pool.hosts[0].slots)


def check_topology(
    pool: HostPool,
    *,
    zero_stage: int,
    hpz: int = 1,
    quantized_weights: bool = False,
    quantized_gradients: bool = False,
) -> TopologyReport:
    """Check that ZeRO++ does on these hosts what it is meant to do.

    Args:
        pool: the hosts and slots of the run.
        zero_stage: 0 to 3.
        hpz: ranks in an hpZ group; 0 and 1 mean off, as in DeepSpeed.
        quantized_weights: whether qwZ is on.
        quantized_gradients: whether qgZ is on.

    Returns:
        Errors for what DeepSpeed would assert in every rank, or do wrong without a word; warnings for
        settings that do nothing.
    """
    wanted = {_HPZ: hpz > 1, "deepspeed.quantized_weights": quantized_weights, _QGZ: quantized_gradients}
    active = [where for where, on in wanted.items() if on]
    if zero_stage < 3:
        return TopologyReport(warnings=tuple(_no_op(where, zero_stage) for where in active))
    errors: list[Problem] = []
    if hpz > 1:
        errors += _check_hpz(pool, hpz)
    uneven = _uneven(pool)
    if uneven and (hpz > 1 or quantized_gradients):
        where = _HPZ if hpz > 1 else _QGZ
        fix = "use the same number of slots on every host (cluster.slots), or turn it off"
        errors.append(
            Problem(f"ZeRO++ needs the same number of slots everywhere: {uneven}", where, None, fix)
        )
    warnings = [_alone(where) for where in active if where in (_HPZ, _QGZ)] if len(pool.hosts) == 1 else []
    return TopologyReport(tuple(errors), tuple(warnings))


def _check_hpz(pool: HostPool, hpz: int) -> list[Problem]:
    ranks = rank_map(pool)
    if hpz > ranks.world_size:
        what = f"an hpZ group is larger than the whole run of {ranks.world_size} ranks"
        return [Problem(what, _HPZ, str(hpz), "write hpz: node")]
    problems = []
    if ranks.world_size % hpz:
        what = f"{ranks.world_size} ranks do not divide into hpZ groups of this size"
        problems.append(Problem(what, _HPZ, str(hpz), "choose a divisor of the slots of each host"))
    straddling = _first_straddling(pool, ranks, hpz)
    if straddling:
        problems.append(straddling)
    return problems


def _first_straddling(pool: HostPool, ranks: RankMap, hpz: int) -> Problem | None:
    """Describe the first group that has ranks on two hosts; only where a host begins can that be."""
    inside = next((first for first in ranks.first_ranks if first % hpz), None)
    if inside is None:
        return None
    group = range(inside - inside % hpz, min(inside - inside % hpz + hpz, ranks.world_size))
    low, high = ranks.locate(group[0])[0], ranks.locate(group[-1])[0]
    names = ", ".join(host.name for host in pool.hosts[low : high + 1][:4])
    what = f"the hpZ group of ranks {group[0]} to {group[-1]} lies on {high - low + 1} hosts ({names})"
    fix = "choose a divisor of the slots of each host, such as hpz: node"
    return Problem(what, _HPZ, str(hpz), fix)


def _uneven(pool: HostPool) -> str:
    """Name two hosts that differ in their number of slots; "" when all are alike."""
    first = pool.hosts[0]
    other = next((host for host in pool.hosts if len(host.slots) != len(first.slots)), None)
    if other is None:
        return ""
    return f"{first.name} has {len(first.slots)} and {other.name} has {len(other.slots)}"


def _no_op(where: str, zero_stage: int) -> Problem:
    return Problem(
        f"does nothing below ZeRO stage 3 (stage is {zero_stage})", where, None, "set zero_stage: 3"
    )


def _alone(where: str) -> Problem:
    return Problem(
        "gains nothing on a single host: it saves traffic between hosts", where, None, "turn it off"
    )
