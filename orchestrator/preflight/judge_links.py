"""Check of the network between hosts: what the program `pairwise` told, and what is slow in it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.hosts.ranges import fold_names
from orchestrator.preflight.findings import Finding
from orchestrator.preflight.slow_links import analyse
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.preflight.case import Case
    from orchestrator.preflight.findings import Level
    from orchestrator.preflight.slow_links import Analysis, Pair

_BAD = 3.0  # from here on a host is to be left out: the ring of all hosts is as slow as its slowest part
_BELOW_LINK = 3.0  # NCCL reaches 80 to 95 % of a healthy link: below a third of it, it uses another network
_LINK_FIX = (
    "test it by itself (ib_write_bw, iperf3); look for errors on its ports (ip -s link, ibstat), or leave "
    "one of the two out"
)
_HOST_FIX = (
    "look at its network card's rate and errors (ethtool, ip -s link, ibstat) and for other jobs there, or "
    "leave it out (--drop-bad)"
)


@dataclass(frozen=True)
class Measured:
    """What all hosts told, put together.

    Attributes:
        speeds: bytes/s that a host sends in a pair's all-reduce; pairs in rank order.
        failures: why a pair could not measure.
        absent: pairs in which one waited for the other in vain; part of `failures`.
        broken: why a host could not take part at all, by name.
        together: bytes/s of the all-reduce of all hosts, and how many took part; None without one.
        apart: why those that had come could not do it.
        ways: how it was measured (nccl, gloo, tcp), by pair.
        without: why a host has no torch, by name.
    """

    speeds: dict[Pair, float] = field(default_factory=dict)
    failures: dict[Pair, str] = field(default_factory=dict)
    absent: set[Pair] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    together: tuple[float, int] | None = None
    apart: str = ""
    ways: dict[Pair, str] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)


def read(told: Mapping[str, Sequence[Mapping[str, Any]]]) -> Measured:
    """Put together what hosts told of their measurements.

    Args:
        told: objects of each host's lines, by host, in rank order; those of other checks are left out.
    """
    found = Measured()
    order = {name: index for index, name in enumerate(told)}
    for host, lines in told.items():
        for line in lines:
            if line.get("check") == "links":
                found = _add(found, host, line, order)
    return found


def _add(found: Measured, host: str, line: Mapping[str, Any], order: Mapping[str, int]) -> Measured:
    if "pair" in line:
        pair, speed = _pair(host, line["pair"]["peer"], order), float(line["pair"]["bandwidth"])
        found.speeds[pair] = min(speed, found.speeds.get(pair, speed))  # the longer of two watches
        found.ways[pair] = str(line["pair"]["how"])
    elif "all" in line:
        speed, hosts = float(line["all"]["bandwidth"]), int(line["all"]["hosts"])
        least = speed if found.together is None else min(speed, found.together[0])
        return Measured(**{**vars(found), "together": (least, hosts)})
    elif line.get("failed", {}).get("kind") == "pair":
        pair = _pair(host, line["failed"]["peer"], order)
        found.failures[pair] = str(line["failed"]["why"])
        if line["failed"].get("absent"):
            found.absent.add(pair)
    elif line.get("failed", {}).get("kind") == "all" and not line["failed"].get("absent"):
        return Measured(**{**vars(found), "apart": found.apart or str(line["failed"]["why"])})
    elif line.get("failed", {}).get("kind") == "host":
        found.broken[host] = str(line["failed"]["why"])
    elif line.get("can") == "tcp" and line.get("why"):
        found.without[host] = str(line["why"])
    return found


def _pair(a: str, b: str, order: Mapping[str, int]) -> Pair:
    first, second = sorted((a, b), key=lambda name: order.get(name, len(order)))
    return first, second


def links(case: Case) -> Iterator[Finding]:
    """Tell hosts and links that are slow or do not work, from what the program `pairwise` told."""
    measured = read({host.name: host.extra for host in case.hosts})
    names = [host.name for host in case.hosts]
    found = [*_broken(measured, names), *_slow(analyse(measured.speeds))]
    expected = case.spec.hardware.link if case.spec.hardware else None
    found += _apart(measured, names)
    found += _below_link(measured, names, expected)
    yield from found
    told = {finding.host for finding in found}
    took_part = {host for pair in measured.speeds for host in pair}
    yield from (Finding(name, "links", "ok") for name in names if name in took_part - told)


def _broken(measured: Measured, names: Sequence[str]) -> Iterator[Finding]:
    for host, why in measured.broken.items():
        yield Finding(host, "links", "bad", f"could not measure: {why}", "free that port, or try again")
    failed = {p: why for p, why in measured.failures.items() if not measured.broken.keys() & set(p)}
    failed = {pair: why for pair, why in failed.items() if pair not in measured.speeds}
    while failed:
        counts = {name: sum(name in pair for pair in failed) for name in names}
        host = max(names, key=lambda name: (counts[name], names.index(name)))
        mine = {pair: why for pair, why in failed.items() if host in pair}
        yield _failure(host, mine, sum(host in pair for pair in measured.speeds))
        failed = {pair: why for pair, why in failed.items() if pair not in mine}


def _failure(host: str, mine: Mapping[Pair, str], well: int) -> Finding:
    others = fold_names([a if b == host else b for a, b in mine])
    why = next(iter(mine.values()))
    what = f"no all-reduce with {others}: {why}" if well else f"answered none of {others}: {why}"
    fix = "open all ports between the hosts (firewall), or set train.interface to the network they share"
    return Finding(host, "links", "bad", what, fix)


def _slow(analysis: Analysis) -> Iterator[Finding]:
    usual = analysis.usual
    for host, (speed, slow, pairs) in analysis.hosts.items():
        what = f"{_times(usual, speed)} in {slow} of its {pairs} pairs: {rate(speed)}, median {rate(usual)}"
        level: Level = "bad" if usual / speed >= _BAD else "warn"
        yield Finding(host, "links", level, f"its network is {what}", _HOST_FIX)
    for (a, b), speed in analysis.links.items():
        what = f"is {_times(usual, speed)}: {rate(speed)}, median {rate(usual)}; their other links are not"
        yield Finding(a, "links", "warn", f"the link to {b} {what}", _LINK_FIX)
        yield Finding(b, "links", "warn", f"the link to {a} {what}", _LINK_FIX)
    for one, other in pairwise(analysis.groups):
        what = f"{fold_names(one)} and {fold_names(other)} have {rate(analysis.between)} between them"
        fix = "choose hosts of one switch (cluster.include; Slurm: --switches=1), if there are enough"
        yield Finding(other[0], "links", "warn", f"{what}, {rate(usual)} among themselves", fix)


def _apart(measured: Measured, names: Sequence[str]) -> Iterator[Finding]:
    """Tell when pairs work and all hosts together do not: too few files or a firewall."""
    if measured.apart and measured.together is None and measured.speeds and not measured.without:
        fix = "look at ulimit -n and at firewalls between hosts that no pair was made of; try fewer hosts"
        yield Finding(
            names[0], "links", "warn", f"no all-reduce of all hosts together: {measured.apart}", fix
        )


def _below_link(measured: Measured, names: Sequence[str], expected: float | None) -> Iterator[Finding]:
    """Tell when NCCL reaches only a small part of the link that the job file declares."""
    if expected is None or not measured.speeds or set(measured.ways.values()) != {"nccl"}:
        return
    usual = median(measured.speeds.values())
    if usual * _BELOW_LINK < expected:
        what = f"pairs reach {rate(usual)}, hardware.link says {rate(expected)}"
        fix = "see with NCCL_DEBUG=INFO which network NCCL takes; set train.interface or NCCL_IB_HCA"
        yield Finding(names[0], "links", "warn", what, fix)


def facts(case: Case) -> dict[str, str]:
    """Return what pairs and all hosts together reach, and how that was measured."""
    measured = read({host.name: host.extra for host in case.hosts})
    if not measured.speeds:
        return {}
    speeds = sorted(measured.speeds.values())
    ways = "/".join(sorted(set(measured.ways.values())))
    text = (
        f"{counted(len(speeds), 'pair')}: median {rate(median(speeds))}, slowest {rate(speeds[0])} ({ways})"
    )
    if measured.together is not None:
        speed, hosts = measured.together
        text += f"; {hosts} hosts together: {rate(speed)}"
    if measured.without:
        text += f"; plain TCP where there is no torch: {fold_names(list(measured.without))}"
    return {"links": text}


def _times(usual: float, speed: float) -> str:
    return f"{usual / speed:.1f} times slower" if speed else "dead"


def rate(speed: float) -> str:
    """Return bytes/s for a reader, with the bits of a link's data sheet: `1.25 GB/s (10 Gbit/s)`."""
    power, unit = (1e9, "G") if speed >= 1e9 else (1e6, "M")
    return f"{_digits(speed / power)} {unit}B/s ({_digits(speed * 8 / power)} {unit}bit/s)"


def _digits(value: float) -> str:
    """Return three digits of a number, and all before its point."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
