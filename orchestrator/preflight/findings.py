"""From the answers of hosts to a table of hosts and checks. Pure: no host is asked here.

A check sees all hosts at once, for much of what is wrong with a host is that it differs from the others.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.hosts.ranges import fold_names
from orchestrator.preflight.probes.answers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from orchestrator.plan import PlannedHost
    from orchestrator.preflight.values import HostAnswer

Level = Literal["ok", "warn", "bad", "-"]
"""What a check says of a host; `-`: not asked, or not answered for a reason that another check tells."""

_ORDER: tuple[Level, ...] = ("-", "ok", "warn", "bad")


@dataclass(frozen=True)
class Finding:
    """What one check says of one host.

    Attributes:
        host: its name.
        check: the check's name, a column of the table.
        level: ok, warn or bad.
        what: what is wrong, with values; "" where all is well.
        fix: what to do about it.
    """

    host: str
    check: str
    level: Level
    what: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Host:
    """All that is known of one host.

    Attributes:
        plan: its place in the run.
        answer: what came back from it.
        probes: data of the probes that gave some, by name.
        errors: why the others gave none, by name.
        extra: other lines of JSON that programs printed there.
        clock: host clock minus ours, and how far that may be off, seconds; None where it is not known.
        tried: how it reached each address of the master (`interface`, or `failure`); None if not tried.
        ready: what it said when it connected back; None if it did not.
        seen: its word in the run directory was found here.
    """

    plan: PlannedHost
    answer: HostAnswer
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    extra: list[dict[str, Any]] = field(default_factory=list)
    clock: tuple[float, float] | None = None
    tried: dict[str, dict[str, str]] | None = None
    ready: dict[str, Any] | None = None
    seen: bool = False

    @property
    def name(self) -> str:
        """Return its name."""
        return self.plan.name

    @property
    def reached(self) -> bool:
        """Tell whether our probes ran there: any line of theirs came back."""
        return bool(self.probes or self.errors or self.ready)


@dataclass(frozen=True)
class Report:
    """What a check of all hosts came to.

    Attributes:
        hosts: names, in rank order.
        checks: names, in the order of the columns.
        findings: one for each host and check that says something, in no order.
        facts: what hosts have in common, and who differs: title -> text.
        seconds: how long it took.
    """

    hosts: tuple[str, ...]
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    facts: dict[str, str]
    seconds: float = 0.0

    def level(self, host: str, check: str) -> Level:
        """Return the worst that a check says of a host."""
        return self.levels().get((host, check), "-")

    def levels(self) -> dict[tuple[str, str], Level]:
        """Return the worst of every host and check that says something."""
        worst: dict[tuple[str, str], Level] = {}
        for each in self.findings:
            key = (each.host, each.check)
            worst[key] = max(worst.get(key, "-"), each.level, key=_ORDER.index)
        return worst

    @property
    def bad(self) -> tuple[str, ...]:
        """Return the hosts that fail a check, in rank order."""
        failed = {each.host for each in self.findings if each.level == "bad"}
        return tuple(host for host in self.hosts if host in failed)

    @property
    def ok(self) -> bool:
        """Tell whether no host fails."""
        return not self.bad

    def to_json(self) -> dict[str, Any]:
        """Return the report for scripts."""
        levels = self.levels()
        return {
            "ok": self.ok,
            "bad": list(self.bad),
            "checks": list(self.checks),
            "hosts": {h: {c: levels.get((h, c), "-") for c in self.checks} for h in self.hosts},
            "findings": [vars(each) for each in self.findings if each.level in ("warn", "bad")],
            "facts": self.facts,
            "seconds": round(self.seconds, 3),
        }


def read_answers(
    lines: Iterable[str],
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[dict[str, Any]]]:
    """Return data by probe, errors by probe, and other objects, from the lines of one host."""
    data: dict[str, dict[str, Any]] = {}
    errors: dict[str, str] = {}
    extra = []
    for line in lines:
        if not line.startswith(PREFIX):
            continue
        try:
            said = json.loads(line[len(PREFIX) :])
        except ValueError:
            continue  # a line that was cut off; the probe counts as unanswered
        if not isinstance(said, dict):
            continue
        if isinstance(said.get("data"), dict) and "probe" in said:
            data[said["probe"]] = said["data"]
        elif "error" in said and "probe" in said:
            errors[said["probe"]] = str(said["error"])
        else:
            extra.append(said)
    return data, errors, extra


def reference(values: Mapping[str, Hashable]) -> Hashable:
    """Return the value that most hosts have; of equally many, the first host's or the first to come.

    Args:
        values: of each host, in rank order; at least one.
    """
    counts = Counter(values.values())
    most = max(counts.values())
    return next(value for value in values.values() if counts[value] == most)


def fold_values(values: Mapping[str, Hashable], hosts: Sequence[str]) -> str:
    """Return who has what: `3.11.2 on all 32 hosts`, or `2.13.0 on 31 hosts, 2.12.1 on node7`.

    Args:
        values: text by host; hosts without one are not mentioned.
        hosts: all hosts, in rank order.
    """
    by_value: dict[Hashable, list[str]] = {}
    for host in hosts:
        if host in values:
            by_value.setdefault(values[host], []).append(host)
    groups = sorted(by_value.items(), key=lambda item: -len(item[1]))
    return ", ".join(
        f"{value} on {_whom(names, hosts, most=not i)}" for i, (value, names) in enumerate(groups)
    )


def _whom(names: list[str], hosts: Sequence[str], *, most: bool) -> str:
    if len(names) == len(hosts):
        return f"all {len(hosts)} hosts" if len(hosts) > 1 else names[0]
    return f"{len(names)} hosts" if most and len(names) > 2 else fold_names(names)


def size_text(size: float) -> str:
    """Return bytes for a reader: 512 MiB, 1.5 TiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
