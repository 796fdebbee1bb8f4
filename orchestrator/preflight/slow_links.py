"""What is slow among pairs of hosts: a host, a link, or the network between two groups of hosts. Pure.

A host that is slow (a card at a lower rate, a bad cable, another job) is slow with everybody; a bad link
makes one pair slow. Where all slow pairs lie between two groups of hosts that are fast among themselves,
nothing is broken: the network between the groups has less room.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, median_high
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SLOW = 1.5
"""A pair is slow that is slower than the median by this factor: below it lies what noise can do."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Analysis:
    """What is slow.

    Attributes:
        usual: median bytes/s of the pairs that are not slow.
        hosts: slow hosts -> (their median bytes/s, slow pairs, measured pairs).
        links: slow pairs that no slow host explains -> bytes/s.
        groups: groups of hosts with little room between them; fewer than two where there is none.
        between: median bytes/s between groups.
    """

    usual: float
    hosts: dict[str, tuple[float, int, int]]
    links: dict[Pair, float]
    groups: tuple[tuple[str, ...], ...] = ()
    between: float = 0.0


def analyse(speeds: Mapping[Pair, float], factor: float = SLOW) -> Analysis:
    """Find what is slow among pairs.

    Args:
        speeds: bytes/s of pairs; not all pairs need be there.
        factor: how much slower than the median a pair must be.
    """
    slow = _slow_pairs(speeds, factor)
    usual = median([speed for pair, speed in speeds.items() if pair not in slow] or [0.0])
    groups = _groups(speeds, slow)
    if len(groups) > 1:
        return Analysis(usual, {}, {}, groups, median(speeds[pair] for pair in slow))
    hosts = {}
    rest = dict(speeds)
    while host := _slowest(rest, slow):
        mine = [pair for pair in speeds if host in pair]
        bad = [pair for pair in mine if pair in slow]
        hosts[host] = (median(speeds[pair] for pair in bad), len(bad), len(mine))
        rest = {pair: speed for pair, speed in rest.items() if host not in pair}
    return Analysis(usual, hosts, {pair: speed for pair, speed in rest.items() if pair in slow})


def _slow_pairs(speeds: Mapping[Pair, float], factor: float) -> set[Pair]:
    """Return the slow pairs: first by what most hosts reach at best, then by the median of the others.

    The median of all pairs would not do: with four hosts, one slow one makes half of all pairs slow.
    """
    best: dict[str, float] = {}
    for pair, speed in speeds.items():
        for host in pair:
            best[host] = max(speed, best.get(host, 0.0))
    if len(best) < 3:  # with one pair there is nothing to compare it with
        return set()
    usual = median_high(best.values())
    for _ in range(3):
        slow = {pair for pair, speed in speeds.items() if speed * factor < usual}
        usual = median(speed for pair, speed in speeds.items() if pair not in slow)
    return {pair for pair, speed in speeds.items() if speed * factor < usual}


def _groups(speeds: Mapping[Pair, float], slow: Collection[Pair]) -> tuple[tuple[str, ...], ...]:
    """Return groups of two and more hosts that only slow pairs join, if every slow pair joins two of them."""
    group = _components(speeds, slow)
    marks = dict.fromkeys(group.values())
    found = tuple(tuple(host for host in group if group[host] == mark) for mark in marks)
    apart = all(group[a] != group[b] for a, b in slow)
    return found if slow and apart and len(found) > 1 and all(len(hosts) > 1 for hosts in found) else ()


def _components(speeds: Mapping[Pair, float], slow: Collection[Pair]) -> dict[str, str]:
    """Return for each host one that stands for all that fast pairs join it with, directly or not."""
    near: dict[str, list[str]] = {host: [] for pair in speeds for host in pair}
    for a, b in (pair for pair in speeds if pair not in slow):
        near[a].append(b)
        near[b].append(a)
    found: dict[str, str] = {}
    for start in near:
        front = [] if start in found else [start]
        while front:
            host = front.pop()
            if host not in found:
                found[host] = start
                front += near[host]
    return {host: found[host] for host in near}


def _slowest(speeds: Mapping[Pair, float], slow: Collection[Pair]) -> str | None:
    """Return the host with the greatest share of slow pairs, if that is most of at least two."""
    pairs: dict[str, list[bool]] = {}
    for pair in speeds:
        for host in pair:
            pairs.setdefault(host, []).append(pair in slow)
    shares = {host: sum(marks) / len(marks) for host, marks in pairs.items() if sum(marks) > 1}
    if not shares:
        return None
    host = max(shares, key=lambda name: (shares[name], len(pairs[name])))
    return host if shares[host] > 0.5 else None
