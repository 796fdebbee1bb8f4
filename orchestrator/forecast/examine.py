"""What a job file, its hosts and its DeepSpeed configuration are found to be, with everything wrong kept.

`prepare` stops at the first thing that is wrong; here each step's errors are noted, and the next step goes on
with what there is. Where the hosts cannot be told, that is what is wrong on any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator import prepare
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.rules import Facts, Finding, check
from orchestrator.rules.gather import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator.configs.merge import Origins
    from orchestrator.errors import Problem
    from orchestrator.job import LoadedJob
    from orchestrator.prepare import Prepared
    from orchestrator.rules.facts import Severity
    from orchestrator.slurm.allocation import Allocation

    T = TypeVar("T")

_OF_CLASSES = (
    "removed-key",
    "unknown-key",
    "wrong-type",
)  # the installed classes say the same, without a fix
_BROKEN = "job"  # the rule of what stops a job outside of the rules
_ANY_HOSTS = tuple(  # hosts x slots that have nothing in common: what is told of each holds for the job's too
    HostPool(tuple(Host(f"{hosts}-{number}", tuple(range(slots))) for number in range(hosts)))
    for hosts, slots in ((1, 1), (2, 8), (3, 7), (5, 6))
)


@dataclass
class Examination:
    """A job under examination: what is known so far, and what was found wrong on the way.

    Attributes:
        job: the job file.
        environ: where the values of `train.secrets` come from.
        given: the hosts that Slurm has given; none, when it has not been asked yet.
        pool: hosts and slots; None when they cannot be told.
        config: DeepSpeed's configuration; empty without one, or when it cannot be built.
        unresolved: its keys that stay `auto`.
        data_parallel: ranks that each take their own samples.
        origins: where the configuration's values are written; None without one.
        facts: what the rules are asked about; None without hosts.
    """

    job: LoadedJob
    environ: Mapping[str, str]
    given: Sequence[str] = ()
    pool: HostPool | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    unresolved: tuple[str, ...] = ()
    data_parallel: int | None = None
    origins: Origins | None = None
    facts: Facts | None = None
    _found: list[Finding] = field(default_factory=list)

    @property
    def asked(self) -> bool:
        """Return whether the hosts have no names yet: Slurm has only been asked for them."""
        return self.pool is not None and self.pool.hosts[0].name.startswith(prepare.NOT_YET)

    def run(self) -> Examination:
        """Look at everything that can be looked at here; return itself."""
        self.pool = self._try(lambda: prepare.pool_of(self.job.spec.cluster, self.given))
        if self.pool is not None:
            return self.run_on(self.pool)
        self._found += _on_any_hosts(self.job, self.environ)
        return self

    def run_on(self, pool: HostPool) -> Examination:
        """Look at everything but the choice of hosts; return itself."""
        self.pool = pool
        self._try(lambda: self._configure(pool))
        self.facts = self._try(lambda: gather(self.job, pool, self.config))
        for problem in prepare.other_problems(self.job, pool, self.environ):
            self.add(JobFileError(problem))
        return self

    def findings(self, **learned: Any) -> tuple[Finding, ...]:
        """Return all that was found, errors first, each with its line of the job file.

        Args:
            learned: facts that came later, such as `gpu_memory_needed`.
        """
        placed = (replace(one, problem=self.job.located(one.problem)) for one in self.unplaced(**learned))
        return tuple(dict.fromkeys(placed))

    def unplaced(self, **learned: Any) -> list[Finding]:
        """Return all that was found, as `findings` does, but with key paths alone."""
        ruled = check(replace(self.facts, **learned)) if self.facts is not None else []
        order = ("error", "warning", "note")
        refused = [found for found in ruled if found.severity == "error" and found.rule in _OF_CLASSES]
        told = {_key_at(found.problem) for found in refused}
        others = [f for f in self._found if f.rule != "installed" or _key_in(f.problem) not in told]
        return sorted([*others, *ruled], key=lambda found: order.index(found.severity))

    def add(self, error: JobFileError) -> None:
        """Note the problems of an error."""
        self.add_all("error", error.problems, _BROKEN)

    def add_all(self, severity: Severity, problems: Iterable[Problem], rule: str) -> None:
        """Note problems that something else than the rules has found."""
        self._found += [Finding(severity, problem, rule) for problem in problems]

    def placed(self, problem: Problem) -> Problem:
        """Return a problem whose words begin with a key of the configuration, where that key is written."""
        key = _key_in(problem)
        if problem.where != "deepspeed" or not key or self.origins is None:
            return problem
        place = self.origins.where(tuple(key.split(".")))
        return problem if place == self.origins.file else replace(problem, where=place)

    def _try(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except JobFileError as error:
            self.add(error)
            return None

    def _configure(self, pool: HostPool) -> None:
        """Build DeepSpeed's configuration as far as it can be told; what is refused is noted."""
        spec, train = self.job.spec.deepspeed, self.job.spec.train
        if spec is None:
            return
        from orchestrator.configs import batch, deepspeed_config  # noqa: PLC0415 - jobs need not have it

        built, problems = deepspeed_config.attempt(
            spec, pool, self.job.base_dir, launcher=train.launcher, model=self.job.spec.model
        )
        self.config, self.unresolved, self.origins = built.config, built.unresolved, built.origins
        self.add_all("error", problems, _BROKEN)
        self._found += prepare.notes_of(built)
        self.data_parallel = batch.data_parallel_size(self.config, pool.world_size)


def _on_any_hosts(job: LoadedJob, environ: Mapping[str, str]) -> list[Finding]:
    """Return what is found wrong with a job whatever its hosts are."""
    nowhere = {"hostfile": None, "include": None, "exclude": None}
    spec = job.spec.model_copy(update={"cluster": job.spec.cluster.model_copy(update=nowhere)})
    elsewhere = replace(job, spec=spec)
    looks = [Examination(elsewhere, environ).run_on(pool).unplaced() for pool in _ANY_HOSTS]
    return [found for found in looks[0] if all(found in others for others in looks[1:])]


def prepare_or_tell(
    job: LoadedJob,
    environ: Mapping[str, str],
    run_id: str | None = None,
    allocation: Allocation | None = None,
) -> Prepared:
    """Return a job as `prepare` does, or say everything that is wrong with it.

    Args: as of `prepare.prepare`.

    Raises:
        JobFileError: with every problem that can be found here, each with its line of the job file.
    """
    try:
        return prepare.prepare(job, environ, run_id, allocation)
    except JobFileError as error:
        given = allocation.hosts if allocation else ()
        every = Examination(job, environ, given).run().findings()
        found = [each.problem for each in every if each.severity == "error"]
        raise JobFileError(*dict.fromkeys([*map(job.located, error.problems), *found])) from error


def _key_in(problem: Problem) -> str:
    """Return the key with which a problem's words begin, as those of the installed classes do."""
    found = re.match(r"[\w.]+", problem.what)
    return found[0] if found else ""


def _key_at(problem: Problem) -> str:
    """Return the key of the configuration at which a rule finds a problem."""
    return problem.where.rpartition(": ")[2].removeprefix("deepspeed.overrides.")
