"""What is known of a job before the queue, and every rule about it.

A rule says that a combination is wrong (error), is known to go wrong or does nothing (warning), or asks
something of the script (note). Each is a function of `Facts` with a stable id; its docstring names its
source. `RULES` has them all, `catalogue` lists them.
"""

from __future__ import annotations

from orchestrator.rules import (
    accelerate,
    checkpoints,
    hpz,
    notify,
    offload,
    optimizer,
    precision,
    quantization,
    shape,
    slurm,
    versions,
)
from orchestrator.rules.facts import Facts, Finding, Rule

__all__ = ["RULES", "Facts", "Finding", "Rule", "catalogue", "check"]

_MODULES = (
    shape,
    hpz,
    quantization,
    precision,
    offload,
    optimizer,
    accelerate,
    checkpoints,
    slurm,
    notify,
    versions,
)
RULES: tuple[Rule, ...] = tuple(
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Rule)
)
_ORDER = ("error", "warning", "note")


def check(facts: Facts) -> list[Finding]:
    """Return what all rules find: errors first, then warnings, then notes."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def catalogue() -> list[tuple[str, str, str]]:
    """Return id, severity and summary of every rule."""
    return [(rule.id, rule.severity, rule.summary) for rule in RULES]
