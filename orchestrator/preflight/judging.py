"""Every check over the answers of all hosts: which there are, what each needs, and the report. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.preflight import (
    judge_disks,
    judge_gpus,
    judge_links,
    judge_machine,
    judge_network,
    judge_ops,
    judge_reach,
    judge_software,
)
from orchestrator.preflight.findings import Finding, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from orchestrator.preflight.case import Case

    Judge = Callable[[Case], Iterator[Finding]]


JUDGES: dict[str, Judge] = {
    "login": judge_network.login,
    "control": judge_network.control,
    "clock": judge_network.clock,
    "master": judge_network.master,
    "interface": judge_network.interface,
    "job": judge_software.job,
    "versions": judge_software.versions,
    "gpus": judge_gpus.gpus,
    "shared": judge_disks.shared,
    "disk": judge_disks.room,
    "nvme": judge_disks.nvme,
    "memory": judge_machine.memory,
    "limits": judge_machine.limits,
    "leftovers": judge_machine.leftovers,
    "reach": judge_reach.reach,
    "ops": judge_ops.ops,
    "links": judge_links.links,
}
"""The checks by name, in the order of the table's columns."""

NEEDS: dict[str, tuple[str, ...]] = {
    "interface": ("network",),
    "job": ("job",),
    "versions": ("software",),
    "gpus": ("gpus", "software"),
    "shared": ("shared",),
    "disk": ("disks", "machine"),
    "nvme": ("nvme",),
    "memory": ("machine",),
    "limits": ("machine",),
    "leftovers": ("leftovers",),
}
"""The probes (preflight.probes.catalogue) that a check needs."""

PROGRAMS = frozenset({"reach", "ops"})
"""The checks that a program of the same name answers (preflight.programs)."""

ON_DEMAND = frozenset({"links"})
"""The checks that are only made when they are asked for: they take their time."""

MEETING = frozenset({"control", "clock", "master", "interface", "links"})
"""The checks for which hosts connect back."""


def probes_for(checks: Collection[str]) -> tuple[str, ...]:
    """Return the probes that these checks need."""
    return tuple(dict.fromkeys(probe for check in checks for probe in NEEDS.get(check, ())))


def judge(case: Case, checks: Sequence[str]) -> Report:
    """Return what the checks say of all hosts; `login` is always among them."""
    names = tuple(name for name in JUDGES if name in checks or name == "login")
    findings = [finding for name in names for finding in JUDGES[name](case)]
    findings += _unanswered(case, names)
    return Report(tuple(host.name for host in case.hosts), names, tuple(findings), _facts(case, names))


def _unanswered(case: Case, checks: Iterable[str]) -> Iterator[Finding]:
    """Yield a failure for each check one of whose probes failed on a host that was reached."""
    for check in checks:
        for host in case.hosts:
            for probe in NEEDS.get(check, (check,) if check in PROGRAMS else ()):
                if probe in host.errors:
                    yield Finding(host.name, check, "bad", f"the probe failed: {host.errors[probe]}")


def _facts(case: Case, checks: Sequence[str]) -> dict[str, str]:
    facts: dict[str, str] = {}
    if "versions" in checks:
        facts |= judge_software.facts(case)
    if "gpus" in checks:
        facts |= judge_gpus.facts(case)
    if "memory" in checks:
        facts |= judge_machine.facts(case)
    if "master" in checks:
        facts |= judge_network.facts(case)
    if "shared" in checks or "nvme" in checks:
        facts |= judge_disks.facts(case)
    if "reach" in checks:
        facts |= judge_reach.facts(case)
    if "ops" in checks:
        facts |= judge_ops.facts(case)
    if "links" in checks:
        facts |= judge_links.facts(case)
    return {title: text for title, text in facts.items() if text}
