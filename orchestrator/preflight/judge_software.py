"""Checks of what is installed: what an agent would refuse to start for, and versions that differ. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.preflight.findings import Finding, fold_values, reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.preflight.case import Case
    from orchestrator.preflight.findings import Level

_PACKAGES = ("torch", "deepspeed", "accelerate", "transformers", "numpy")
_MUST_MATCH = ("torch", "deepspeed")  # ranks of different ones do not speak the same collectives


def job(case: Case) -> Iterator[Finding]:
    """Tell what a run's own agent would refuse to start for: workdir, script, modules, too few GPUs."""
    for name, host in case.with_data("job").items():
        problems = host.probes["job"]["problems"]
        for text in problems:
            what, _, fix = text.partition("; ")
            yield Finding(name, "job", "bad", what, fix)
        if not problems:
            yield Finding(name, "job", "ok")


def versions(case: Case) -> Iterator[Finding]:
    """Tell hosts whose python or packages differ from those of most."""
    hosts = case.with_data("software")
    if not hosts:
        return
    yield from _python(case)
    for package in _PACKAGES:
        found = {n: host.probes["software"]["packages"].get(package) for n, host in hosts.items()}
        level: Level = "bad" if package in _MUST_MATCH else "warn"
        yield from _differing(package, found, level)
    for name in hosts:
        yield Finding(name, "versions", "ok")


def _python(case: Case) -> Iterator[Finding]:
    full = {name: host.probes["software"]["python"] for name, host in case.with_data("software").items()}
    minor = {name: ".".join(version.split(".")[:2]) for name, version in full.items()}
    wrong = list(_differing("python", minor, "bad"))
    yield from wrong
    told = {finding.host for finding in wrong}
    yield from (each for each in _differing("python", full, "warn") if each.host not in told)


def _differing(what: str, values: Mapping[str, str | None], level: Level) -> Iterator[Finding]:
    usual = reference(values)
    fix = f"install the same {what} everywhere, or set train.python to one that all hosts share"
    for name, value in values.items():
        if value != usual:
            has = f"has {what} {value}" if value else f"has no {what}"
            most = f"most hosts have {usual}" if usual else "most hosts have none"
            yield Finding(name, "versions", level, f"{has}; {most}", fix)


def facts(case: Case) -> dict[str, str]:
    """Return python and packages, folded over hosts."""
    software = {name: host.probes["software"] for name, host in case.with_data("software").items()}
    hosts = [host.name for host in case.hosts]
    pythons = {name: f"{said['python']} ({said['executable']})" for name, said in software.items()}
    found = {"python": fold_values(pythons, hosts)}
    for package in _PACKAGES:
        has = {n: s["packages"][package] for n, s in software.items() if package in s["packages"]}
        found[package] = fold_values(has, hosts)
    return found
