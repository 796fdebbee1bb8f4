"""From a job file to everything a run is made of: resolve, check, plan, render. Nothing is written."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.hosts import Host, HostPool
from orchestrator.hosts.dialects import slot_filter
from orchestrator.notify.needs import values_for
from orchestrator.plan import LaunchPlan, make_plan, plan_hosts
from orchestrator.render import RenderedFile, render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.configs.deepspeed_config import Built
    from orchestrator.job import ClusterSpec, LoadedJob
    from orchestrator.rules import Facts, Finding
    from orchestrator.slurm.allocation import Allocation

NOT_YET = "slurm-node-"
"""Begins the name of a host that Slurm has not given yet."""
_DS_OPTION = re.compile("--?(deepspeed|deepspeed[-_]config|ds[-_]config)([-_]file)?")
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another when read aloud


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to be written and started.

    Attributes:
        job: the job file.
        plan: the launch plan.
        files: what was rendered for the first attempt.
        secrets, told: values for `secrets.env`, and those that notifications need, by name.
        warnings: what the user should know and may ignore.
        findings: what the rules have found, none of it an error.
        facts: what they were asked about; what is learned later can be added, and the rules asked again.
    """

    job: LoadedJob
    plan: LaunchPlan
    files: list[RenderedFile]
    secrets: dict[str, str]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    facts: Facts
    told: dict[str, str] = field(default_factory=dict)


def new_run_id(name: str) -> str:
    """Return a short readable id: the job's name as a slug, and four random characters."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24].strip("-") or "job"
    return f"{slug}-{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def prepare(
    job: LoadedJob,
    environ: Mapping[str, str],
    run_id: str | None = None,
    allocation: Allocation | None = None,
) -> Prepared:
    """Do everything short of writing: a job that gets past this is right as far as can be known here.

    Args:
        job: the job file.
        environ: where the values of `train.secrets` come from.
        run_id: the id to use; a new one when not given.
        allocation: the Slurm allocation that the user holds, to run in that one.

    Raises:
        JobFileError: the job file, the hostfile, a filter or a combination of them is wrong.
    """
    pool = pool_of(job.spec.cluster, allocation.hosts if allocation else ())
    built = _deepspeed(job, pool)
    deepspeed = None if built is None else built.config
    facts, findings = _check(job, pool, deepspeed)
    findings = (*findings, *notes_of(built))
    env_file = _env_file(job)
    run_id = run_id or new_run_id(job.spec.name)
    plan = make_plan(
        job,
        pool,
        ds_filter=slot_filter(pool),
        deepspeed=deepspeed,
        env_file=env_file,
        run_id=run_id,
        run_dir=job.spec.run_root.absolute() / run_id,
        created=time.time(),
    )
    if allocation is not None and plan.slurm is not None:
        plan = replace(plan, slurm=replace(plan.slurm, in_allocation=True))
    warnings = tuple(str(found.problem) for found in findings if found.severity == "warning")
    passed = {**env_file, **_secrets(job, environ)}
    return Prepared(job, plan, render(plan), passed, warnings, findings, facts, values_for(job, environ))


def pool_of(cluster: ClusterSpec, given: Sequence[str] = ()) -> HostPool:
    """Return the hosts and slots of the run.

    Args:
        cluster: section `cluster` of the job file.
        given: the hosts that Slurm has given; none, when it has not been asked yet: then they are as many as
            will be asked for, under names that only say so.
    """
    if cluster.backend != "slurm":
        from orchestrator.hosts.pool import resolve_pool  # noqa: PLC0415 - on Slurm nothing is resolved yet

        return resolve_pool(cluster)
    from orchestrator.slurm.options import filter_allocation, gpu_count, host_request  # noqa: PLC0415

    asked = host_request(cluster)
    names = given or asked.names or [f"{NOT_YET}{number}" for number in range(1, asked.nodes + 1)]
    slots = tuple(range(gpu_count(cluster.slurm) or asked.slots))
    pool = filter_allocation(
        HostPool(tuple(Host(name, slots) for name in names)), cluster.include, cluster.exclude
    )
    hosts = pool.hosts[: asked.nodes]
    return HostPool(tuple(replace(host, slots=host.slots[: asked.slots]) for host in hosts))


def place(plan: LaunchPlan, job: LoadedJob, given: Sequence[str]) -> LaunchPlan:
    """Return the plan on hosts that a scheduler has given: checked, and configured for their ranks.

    Args:
        plan: the one made at submit, for hosts that were only asked for.
        job: the job file.
        given: names of the hosts that were given.

    Raises:
        JobFileError: the job does not fit these hosts.
    """
    pool = pool_of(job.spec.cluster, given)
    job = _with_batch_of(plan, job, pool)
    built = _deepspeed(job, pool)
    deepspeed = None if built is None else built.config
    _, findings = _rules(job, pool, deepspeed)
    errors = [*_errors(findings), *_launcher_problems(job, pool)]
    if errors:
        raise JobFileError(*errors)
    hosts = plan_hosts(pool, simulated=False)
    return replace(plan, hosts=hosts, ds_filter=slot_filter(pool), deepspeed=deepspeed)


def _with_batch_of(plan: LaunchPlan, job: LoadedJob, pool: HostPool) -> LoadedJob:
    """Return the job with the global batch it was submitted with, on as many ranks as it has got."""
    spec = job.spec.deepspeed
    if spec is None or plan.deepspeed is None or pool.world_size == plan.world_size:
        return job
    from orchestrator.configs.keep_batch import kept_batch  # noqa: PLC0415 - few runs change their size

    overrides = {**spec.overrides, **kept_batch(plan.deepspeed, pool.world_size)}
    kept = spec.model_copy(update={"overrides": overrides})
    return replace(job, spec=job.spec.model_copy(update={"deepspeed": kept}))


def _check(
    job: LoadedJob, pool: HostPool, deepspeed: dict[str, Any] | None
) -> tuple[Facts, tuple[Finding, ...]]:
    """Check what only hosts and job file together show; return what is no error, and the facts behind it."""
    facts, findings = _rules(job, pool, deepspeed)
    errors = [*_errors(findings), *_launcher_problems(job, pool), *_files(job)]
    if errors:
        raise JobFileError(*errors)
    return facts, findings


def _rules(
    job: LoadedJob, pool: HostPool, deepspeed: dict[str, Any] | None
) -> tuple[Facts, tuple[Finding, ...]]:
    from orchestrator import rules  # noqa: PLC0415
    from orchestrator.rules.gather import gather  # noqa: PLC0415

    facts = gather(job, pool, deepspeed)
    return facts, tuple(rules.check(facts))


def _errors(findings: Sequence[Finding]) -> list[Problem]:
    return [found.problem for found in findings if found.severity == "error"]


def _launcher_problems(job: LoadedJob, pool: HostPool) -> list[Problem]:
    from orchestrator.configs import accelerate_config  # noqa: PLC0415

    return list(accelerate_config.check_launcher(job.spec.train.launcher, pool))


def _files(job: LoadedJob) -> list[Problem]:
    """Check what must exist on this machine too."""
    spec = job.spec
    script = spec.train.script_path(job.base_dir)
    problems = []
    if spec.train.snapshot or spec.cluster.backend == "local":
        problems += _missing("train.workdir", spec.train.workdir_path(job.base_dir), folder=True)
        problems += _missing("train.script", script) if script and not problems else []
        problems += [] if problems else _own_configurations(job)
    if spec.cluster.backend != "local" and '"' in str(spec.run_root):
        what = "a double quote in the path cannot be written into an ssh configuration"
        problems.append(Problem(what, "run_root", str(spec.run_root), "choose a path without one"))
    problems += _missing("cluster.ssh.config", spec.cluster.ssh.config)
    problems += _missing("cluster.ssh.identity", spec.cluster.ssh.identity)
    problems += _patterns([str(path) for path in spec.monitor.patterns]) if spec.monitor.patterns else []
    return problems + _missing("templates", spec.templates, folder=True)


def _patterns(files: list[str]) -> list[Problem]:
    """Read the user's patterns: when a diagnosis needs them it is too late to correct them."""
    from orchestrator.diagnose.patterns import load  # noqa: PLC0415 - few jobs have some

    try:
        load(files)
    except JobFileError as error:
        return list(error.problems)
    return []


def _own_configurations(job: LoadedJob) -> list[Problem]:
    """Check the DeepSpeed files that the script's arguments name by their own path, not by {ds_config}."""
    problems, args = [], job.spec.train.args
    for number, (option, value) in enumerate(zip(args, [*args, ""][1:], strict=True)):
        name, joined, path = option.partition("=")
        path = path if joined else value
        far = job.spec.cluster.backend != "local" and path.startswith("/")  # perhaps on the hosts alone
        if _DS_OPTION.fullmatch(name) and path.endswith(".json") and "{" not in path and not far:
            where = f"train.args.{number if joined else number + 1}"
            problems += _missing(where, job.spec.train.workdir_path(job.base_dir) / path)
    return problems


def other_problems(job: LoadedJob, pool: HostPool, environ: Mapping[str, str]) -> list[Problem]:
    """Return what stands against a start besides hosts, DeepSpeed's configuration and the rules."""
    problems = [*_launcher_problems(job, pool), *_files(job)]
    for read in (partial(_env_file, job), partial(_secrets, job, environ), partial(values_for, job, environ)):
        try:
            read()
        except JobFileError as error:
            problems += error.problems
    return problems


def _missing(where: str, path: Path | None, *, folder: bool = False) -> list[Problem]:
    if path is None or (path.is_dir() if folder else path.is_file()):
        return []
    kind = "folder" if folder else "file"
    return [
        Problem(
            f"there is no such {kind}",
            where,
            str(path),
            "correct the path; relative ones start at the job file",
        )
    ]


def _deepspeed(job: LoadedJob, pool: HostPool) -> Built | None:
    if job.spec.deepspeed is None:
        return None
    from orchestrator.configs import deepspeed_config  # noqa: PLC0415

    spec = job.spec
    return deepspeed_config.build(
        job.spec.deepspeed, pool, job.base_dir, launcher=spec.train.launcher, model=spec.model
    )


def notes_of(built: Built | None) -> tuple[Finding, ...]:
    """Return what there is to say about DeepSpeed's configuration: values rounded, `auto` filled."""
    if built is None:
        return ()
    from orchestrator.rules import Finding  # noqa: PLC0415

    warnings = (Finding("warning", problem, "configuration") for problem in built.warnings)
    return (*warnings, *(Finding("note", problem, "auto-filled") for problem in built.resolved))


def _env_file(job: LoadedJob) -> dict[str, str]:
    if job.spec.train.env_file is None:
        return {}
    from orchestrator.job.envfile import read_env_file  # noqa: PLC0415

    return read_env_file(job.spec.train.env_file)


def _secrets(job: LoadedJob, environ: Mapping[str, str]) -> dict[str, str]:
    absent = [name for name in job.spec.train.secrets if name not in environ]
    if absent:
        fix = "export {}=… before submit, or take it out of train.secrets"
        what, where = "not set in the environment", "train.secrets"
        raise JobFileError(*(Problem(what, where, name, fix.format(name)) for name in absent))
    return {name: environ[name] for name in job.spec.train.secrets}
