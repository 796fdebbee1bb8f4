"""Whom a run tells of itself, as the plan holds it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.job.notify_spec import NotifySpec

_SAID = re.compile(r"(?<=://)[^/@]*(?=@)|(?<=[^:/]/)(?!\$\{\w+\}(?:/|$))[^/]+")
"""Of an address user and password, and each part behind the host that is no variable."""


@dataclass(frozen=True, slots=True)
class NotifyPlan:
    """One way to tell somebody; secrets stand in it by name only.

    Attributes:
        on: the occasions: start, restart, hang, straggler, fault, failure, end.
        way: command, mail, slack, discord or webhook.
        target: the command's words, the mail addresses, or the one variable or URL.
        variables: the environment variables whose values it needs.
        options: of mail: smtp, sender, user, and password (the name of its variable).
    """

    on: tuple[str, ...]
    way: str
    target: tuple[str, ...]
    variables: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what it is called in events and tables; no secret is in it, nor what may be one."""
        said = self.target[0] if self.way == "command" else ", ".join(self.target)
        return f"{self.way} {_SAID.sub('…', said) if self.way == 'webhook' else said}"


def notify_plans(specs: list[NotifySpec]) -> tuple[NotifyPlan, ...]:
    """Return what the job file's section says."""
    return tuple(map(_plan, specs))


def _plan(spec: NotifySpec) -> NotifyPlan:
    said = {key: getattr(spec, key) for key in ("smtp", "sender", "user", "password")}
    options = {key: value for key, value in said.items() if value is not None}
    return NotifyPlan(tuple(spec.on), spec.way, spec.target, spec.variables, options)


def notify_from(entries: list[dict[str, Any]]) -> tuple[NotifyPlan, ...]:
    """Read back what `plan.json` holds of them."""
    known = {each.name for each in fields(NotifyPlan)}
    kept = [{key: value for key, value in entry.items() if key in known} for entry in entries]
    lists = ("on", "target", "variables")
    return tuple(NotifyPlan(**entry | {key: tuple(entry[key]) for key in lists}) for entry in kept)
