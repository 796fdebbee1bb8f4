"""The plan of a job as one value: what is known, what is predicted, what is wrong, and what was assumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.estimate import Settings, Suggestions
    from orchestrator.forecast.estimates import Estimates
    from orchestrator.hosts import HostPool
    from orchestrator.job import JobSpec
    from orchestrator.rules import Finding


@dataclass(frozen=True)
class Wish:
    """Something the job file could say to get more out of a plan.

    Attributes:
        key: the key path.
        example: a value for it.
        gives: what the plan would then show.
    """

    key: str
    example: str
    gives: str


@dataclass(frozen=True)
class Checked:
    """That the rendered configurations were loaded by the installed DeepSpeed and Accelerate.

    Attributes:
        versions: by package; None for one that could not be asked.
        seconds: how long it took.
    """

    versions: Mapping[str, str | None]
    seconds: float


@dataclass(frozen=True)
class PlanDocument:
    """The plan of one job; None and empty is what could not be found out.

    Attributes:
        job_file: the job file, as given.
        spec: what it says.
        pool: hosts and slots after the filters.
        asked: the hosts are only asked for: Slurm has not given them yet.
        config: DeepSpeed's configuration; empty when the job has none.
        settings: what of it matters for estimates; None when the job has none.
        data_parallel: ranks that each take their own samples.
        findings: errors, warnings and notes, the errors first.
        estimates: memory, traffic, times.
        suggestions: settings that fit, ranked; None when nobody asked.
        points: settings of the sweep's points; 0 for a single run. The plan is that of the first point.
        wishes: what the job file could say to show more.
        assumed: what was taken for granted because the job file does not say it.
        checked: the check against the installed classes; None when it was not made.
        seconds: how long parts of the plan took, by name.
    """

    job_file: str
    spec: JobSpec
    pool: HostPool | None = None
    asked: bool = False
    config: Mapping[str, Any] | None = None
    settings: Settings | None = None
    data_parallel: int | None = None
    findings: tuple[Finding, ...] = ()
    estimates: Estimates | None = None
    suggestions: Suggestions | None = None
    points: int = 0
    wishes: tuple[Wish, ...] = ()
    assumed: tuple[str, ...] = ()
    checked: Checked | None = None
    seconds: Mapping[str, float] | None = None

    @property
    def hpz(self) -> int:
        """Return the ranks of an hpZ group; 1 when hpZ is off."""
        zero = (self.config or {}).get("zero_optimization")
        size = zero.get("zero_hpz_partition_size") if isinstance(zero, dict) else None
        return size if isinstance(size, int) and size > 1 else 1

    @property
    def has_errors(self) -> bool:
        """Return whether the job could not be submitted as it is."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the document for `json.dumps`: bytes, seconds and bytes per second as numbers."""
        cluster, checked = self.spec.cluster, self.checked
        return {
            "name": self.spec.name,
            "job_file": self.job_file,
            "backend": cluster.backend,
            "launcher": self.spec.train.launcher,
            "points": self.points,
            "world_size": None if self.pool is None else self.pool.world_size,
            "data_parallel": self.data_parallel,
            "hpz": self.hpz,
            "settings": None if self.settings is None else asdict(self.settings),
            "hosts": None if self.pool is None else _hosts(self.pool),
            "batch": _batch(self.config or {}),
            "estimates": None if self.estimates is None else self.estimates.to_json(),
            "findings": [_finding(finding) for finding in self.findings],
            "suggestions": None if self.suggestions is None else _suggestions(self.suggestions),
            "assumed": list(self.assumed),
            "wishes": [vars(wish) for wish in self.wishes],
            "checked": None if checked is None else {**vars(checked), "versions": dict(checked.versions)},
            "seconds": dict(self.seconds or {}),
        }


def _hosts(pool: HostPool) -> list[dict[str, Any]]:
    from orchestrator.hosts.topology import first_ranks  # noqa: PLC0415 - only where there are hosts

    return [
        {"name": host.name, "slots": list(host.slots), "first_rank": first}
        for host, first in zip(pool.hosts, first_ranks(pool), strict=True)
    ]


def _batch(config: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    return {key: config.get(key) for key in keys}


def _finding(finding: Finding) -> dict[str, Any]:
    return {"severity": finding.severity, "rule": finding.rule, **vars(finding.problem)}


def _suggestions(suggestions: Suggestions) -> dict[str, Any]:
    return {
        "ranked": [candidate.to_json() for candidate in suggestions.ranked],
        "dropped": [{"stage": each.settings.stage, "reason": each.reason} for each in suggestions.dropped],
    }
