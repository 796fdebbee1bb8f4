"""What a job file, its hosts and its DeepSpeed configuration are found to be, with everything wrong kept.

`prepare` stops at the first thing that is wrong; here each step's errors are noted, and the next step goes on
with what there is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator import prepare
from orchestrator.errors import JobFileError
from orchestrator.rules import Facts, Finding, check
from orchestrator.rules.gather import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from orchestrator.errors import Problem
    from orchestrator.hosts import HostPool
    from orchestrator.job import DeepSpeedSpec, LoadedJob
    from orchestrator.rules.facts import Severity

    T = TypeVar("T")

_BROKEN = "job"  # the rule of what stops a job outside of the rules


@dataclass
class Examination:
    """A job under examination: what is known so far, and what was found wrong on the way.

    Attributes:
        job: the job file.
        environ: where the values of `train.secrets` come from.
        pool: hosts and slots; None when they cannot be told.
        config: DeepSpeed's configuration; empty without one, or when it cannot be built.
        unresolved: its keys that stay `auto`.
        data_parallel: ranks that each take their own samples.
        facts: what the rules are asked about; None without hosts.
    """

    job: LoadedJob
    environ: Mapping[str, str]
    pool: HostPool | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()
    data_parallel: int | None = None
    facts: Facts | None = None
    _found: list[Finding] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        """Return whether the hosts have no names yet: Slurm has only been asked for them."""
        return self.pool is not None and self.pool.hosts[0].name.startswith(prepare.NOT_YET)

    def run(self) -> Examination:
        """Look at everything that can be looked at here; return itself."""
        self.pool = self._try(lambda: prepare.pool_of(self.job.spec.cluster))
        if self.pool is None:
            return self
        pool = self.pool
        self._configure(pool)
        self.facts = self._try(lambda: gather(self.job, pool, self.config))
        for problem in prepare.other_problems(self.job, pool, self.environ):
            self.add(JobFileError(problem))
        return self

    def findings(self, **learned: Any) -> tuple[Finding, ...]:
        """Return all that was found, errors first, each with its line of the job file.

        Args:
            learned: facts that came later, such as `gpu_memory_needed`.
        """
        ruled = check(replace(self.facts, **learned)) if self.facts is not None else []
        order = ("error", "warning", "note")
        every = sorted([*self._found, *ruled], key=lambda found: order.index(found.severity))
        placed = (replace(found, problem=self.job.located(found.problem)) for found in every)
        return tuple(dict.fromkeys(placed))

    def add(self, error: JobFileError) -> None:
        """Note the problems of an error."""
        self.add_all("error", error.problems, _BROKEN)

    def add_all(self, severity: Severity, problems: Iterable[Problem], rule: str) -> None:
        """Note problems that something else than the rules has found."""
        self._found += [Finding(severity, problem, rule) for problem in problems]

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except JobFileError as error:
            self.add(error)
            return None

    def _configure(self, pool: HostPool) -> None:
        """Build DeepSpeed's configuration; what is refused is noted, and left out of a second try."""
        spec = self.job.spec.deepspeed
        if spec is None:
            return
        try:
            self._build(spec, pool)
        except JobFileError as error:
            self.add(error)
            try:
                self._build(_without(spec, error), pool)
            except JobFileError:
                return  # nothing more is to be told: the errors have been

    def _build(self, spec: DeepSpeedSpec, pool: HostPool) -> None:
        from orchestrator.configs import batch, deepspeed_config  # noqa: PLC0415 - jobs need not have it

        job = self.job.spec
        built = deepspeed_config.build(
            spec, pool, self.job.base_dir, launcher=job.train.launcher, model=job.model
        )
        self.config, self.unresolved = built.config, built.unresolved
        self._found += prepare.notes_of(built)
        self.data_parallel = batch.data_parallel_size(self.config, pool.world_size)


def _without(spec: DeepSpeedSpec, error: JobFileError) -> DeepSpeedSpec:
    """Return the section without the fields that an error is about."""
    keys = [problem.where.split(".") for problem in error.problems]
    fields = {key[1] for key in keys if key[0] == "deepspeed" and len(key) > 1}
    empty: dict[str, Any] = {
        name: {} if name == "overrides" else None for name in fields & set(type(spec).model_fields)
    }
    return spec.model_copy(update=empty)
