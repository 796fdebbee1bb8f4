"""Checks of the ways between hosts: login, the way back, clocks, the master's address and port. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.launchers.base import NO_BUNDLE, NODE_SCRIPT_FAILED
from orchestrator.preflight.findings import Finding, fold_values
from orchestrator.preflight.words import UNKNOWN, classify, told_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.plan import LaunchPlan
    from orchestrator.preflight.case import Case
    from orchestrator.preflight.findings import Host

_CLOCK_WARN = 1.0  # seconds: from here on, times in logs of several hosts mislead, and make rebuilds or skips
_CLOCK_BAD = 60.0  # seconds: from here on, a restart may not take its own checkpoint for its own


def login(case: Case) -> Iterator[Finding]:
    """Tell hosts that cannot be reached, in the words of ssh or srun, or on which node.sh failed."""
    for host in case.hosts:
        answer = host.answer
        if answer.exit == NODE_SCRIPT_FAILED:
            what, _, fix = answer.words.partition("; ")
            yield Finding(host.name, "login", "ok")
            yield Finding(host.name, "job", "bad", what, fix)
        elif host.reached:
            yield Finding(host.name, "login", "ok")
        elif _was_started(host, case.plan.backend):
            yield Finding(host.name, "login", "ok")
            yield _no_python(case.plan, host)
        else:
            yield _unreached(host)


def _was_started(host: Host, backend: str) -> bool:
    """Tell whether the command on the host began, and what it runs never came to a word of the probes.

    Not so for exit codes of ssh, of node.sh and of ours, nor for words that ssh is known by; srun has its own
    ones for many things, but no 0.
    """
    code, words = host.answer.exit, "\n".join([*host.answer.stdout, host.answer.words])
    if code in (None, 255, NO_BUNDLE) or "cannot start " in words:
        return False
    return code == 0 or (backend != "slurm" and classify(words).kind == UNKNOWN)


def _no_python(plan: LaunchPlan, host: Host) -> Finding:
    """Tell a host on which what should have run the probes has ended without a word of theirs."""
    said = told_by(host.answer.stdout) or host.answer.words
    who = f"train.python {plan.python}"
    who = f"a line of train.setup, or {who}," if plan.setup else who
    what = f"{who} ended with {host.answer.exit} in place of running a program"
    fix = "set train.python to a Python 3.8 or later on the hosts; `PYTHON -c pass` there says what is wrong"
    fix = f"see whether a line of train.setup exits; else {fix}" if plan.setup else fix
    return Finding(host.name, "job", "bad", f"{what}: {said}" if said else what, fix)


def _unreached(host: Host) -> Finding:
    answer = host.answer
    if answer.exit is None:
        fix = f"see what hangs there (ssh {host.name}; a line of train.setup?), or give it --timeout"
        return Finding(host.name, "login", "bad", answer.words, fix)
    known = classify("\n".join([*answer.stdout, answer.words]))
    what = f"{known.kind}: {answer.words}" if answer.words else f"ended with {answer.exit}"
    return Finding(host.name, "login", "bad", what, known.fix.replace("NAME", host.name))


def control(case: Case) -> Iterator[Finding]:
    """Tell hosts from which the submit host cannot be reached: their agents would wait in vain."""
    fix = "set cluster.control_address to an address of the submit host that hosts reach (and control_port)"
    for host in case.hosts:
        if host.ready is not None:
            yield Finding(host.name, "control", "ok")
        elif "control" in host.errors and case.from_login:
            what = "it does not reach this login host, so its clock and its way to the master were not tested"
            fix = "no harm to a run, whose supervisor is on a host of the job"
            yield Finding(host.name, "control", "warn", what, fix)
        elif "control" in host.errors:
            yield Finding(host.name, "control", "bad", host.errors["control"], fix)


def clock(case: Case) -> Iterator[Finding]:
    """Tell hosts whose clock differs from ours for certain, beyond what the way there may have taken."""
    for host in case.hosts:
        if host.clock is None:
            continue
        offset, uncertainty = host.clock
        sure = abs(offset) - uncertainty
        side = "ahead of" if offset > 0 else "behind"
        what = f"its clock is {abs(offset):.1f} s {side} the submit host's"
        if sure <= _CLOCK_WARN:
            yield Finding(host.name, "clock", "ok")
            continue
        fix = "set it by NTP: systemctl status chronyd, or timedatectl set-ntp true"
        yield Finding(host.name, "clock", "bad" if sure > _CLOCK_BAD else "warn", what, fix)


def master(case: Case) -> Iterator[Finding]:
    """Tell a port that is taken on the master, and hosts that do not reach it at the address of most."""
    first = case.hosts[0]
    port = (first.ready or {}).get("port")
    if isinstance(port, str):
        yield Finding(first.name, "master", "bad", port, "leave train.master_port out: a free one is taken")
        return
    address = best_address(case.hosts)
    for host in case.hosts:
        if host.tried is None:
            continue
        if address in host.tried and "interface" in host.tried[address]:
            yield Finding(host.name, "master", "ok")
            continue
        told = "; ".join(f"{where}: {how.get('failure', 'answers')}" for where, how in host.tried.items())
        what = f"cannot reach the master {first.name} on port {port} ({told or 'it has no address'})"
        fix = "open the ports between hosts (firewall), or set train.master_addr or train.interface"
        yield Finding(host.name, "master", "bad", what, fix)


def best_address(hosts: Sequence[Host]) -> str:
    """Return the address at which most hosts reached the master, the likeliest first; "" for none.

    A run takes the first that every host reaches.
    """
    tried = [host.tried for host in hosts if host.tried is not None]
    addresses = list(dict.fromkeys(address for each in tried for address in each))
    counts = {a: sum("interface" in each.get(a, {}) for each in tried) for a in addresses}
    return max(addresses, key=lambda address: counts[address], default="") if any(counts.values()) else ""


def own_address(host: Host, hosts: Sequence[Host]) -> tuple[str, str] | None:
    """Return a host's own address and interface on its way to the master; None where it has no way."""
    way = (host.tried or {}).get(best_address(hosts), {})
    return (way["own"], way["interface"]) if "interface" in way else None


def interface(case: Case) -> Iterator[Finding]:
    """Tell hosts without train.interface, or whose way to the master leads through another one."""
    wanted, address = case.plan.interface, best_address(case.hosts)
    for name, host in case.with_data("network").items():
        there = host.probes["network"]["interfaces"]
        used = (host.tried or {}).get(address, {}).get("interface", "")
        if wanted is not None and wanted not in there:
            fix = "correct train.interface, or leave it out: each host's own way to the master is taken"
            yield Finding(name, "interface", "bad", f"it has no {wanted}, only {', '.join(there)}", fix)
        elif wanted is not None and used and used != wanted:
            what = f"{address} is reached through {used}, not through train.interface {wanted}"
            fix = "set train.master_addr to an address on that network, or leave train.interface out"
            yield Finding(name, "interface", "warn", what, fix)
        elif used or wanted is not None:
            yield Finding(name, "interface", "ok")


def facts(case: Case) -> dict[str, str]:
    """Return the master's address and the interfaces that lead to it."""
    address = best_address(case.hosts)
    if not address:
        return {}
    used = {host.name: (host.tried or {}).get(address, {}).get("interface", "") for host in case.hosts}
    ways = fold_values({n: way for n, way in used.items() if way}, [host.name for host in case.hosts])
    return {"master": f"{case.hosts[0].name} at {address}, through {ways}"}
