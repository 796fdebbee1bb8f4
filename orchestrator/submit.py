"""From a job file to a started run: resolve, plan, render, write, start the supervisor."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import __version__, registry
from orchestrator.errors import JobFileError, Problem, SubmitError
from orchestrator.hosts import Host, HostPool
from orchestrator.plan import LaunchPlan, make_plan
from orchestrator.render import RenderedFile, render
from orchestrator.rundir import RunDir, write_json, write_text
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.job import LoadedJob

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that is taken for another when read aloud


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to be written and started.

    Attributes:
        job: the job file.
        plan: the launch plan.
        files: what was rendered for the first attempt.
        secrets: values for `secrets.env`, by name.
        warnings: what the user should know and may ignore.
    """

    job: LoadedJob
    plan: LaunchPlan
    files: list[RenderedFile]
    secrets: dict[str, str]
    warnings: tuple[str, ...]


def new_run_id(name: str) -> str:
    """Return a short readable id: the job's name as a slug, and four random characters."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:24].strip("-") or "job"
    return f"{slug}-{''.join(secrets.choice(_LETTERS) for _ in range(4))}"


def prepare(job: LoadedJob, environ: Mapping[str, str], run_id: str | None = None) -> Prepared:
    """Do everything short of writing: a job that gets past this is right as far as can be known here.

    Args:
        job: the job file.
        environ: where the values of `train.secrets` come from.
        run_id: the id to use; a new one when not given.

    Raises:
        JobFileError: the job file, the hostfile, a filter or a combination of them is wrong.
    """
    from orchestrator.hosts.pool import resolve_pool  # noqa: PLC0415 - render and status start without it

    if job.spec.cluster.backend == "slurm":
        fix = "use local, pdsh or ssh"
        raise JobFileError(Problem("this version starts no Slurm jobs yet", "cluster.backend", "slurm", fix))
    pool = resolve_pool(job.spec.cluster)
    deepspeed = _deepspeed(job, pool)
    warnings = _check(job, pool, deepspeed)
    env_file = _env_file(job)
    run_id = run_id or new_run_id(job.spec.name)
    plan = make_plan(
        job,
        pool,
        ds_filter=_slot_filter(pool),
        deepspeed=deepspeed,
        env_file=env_file,
        run_id=run_id,
        run_dir=job.spec.run_root.absolute() / run_id,
        created=time.time(),
    )
    return Prepared(job, plan, render(plan), {**env_file, **_secrets(job, environ)}, warnings)


def _check(job: LoadedJob, pool: HostPool, deepspeed: dict[str, Any] | None) -> tuple[str, ...]:
    """Check what only hosts and job file together show; return the warnings."""
    from orchestrator.configs import accelerate_config  # noqa: PLC0415
    from orchestrator.hosts import topology  # noqa: PLC0415

    zero = (deepspeed or {}).get("zero_optimization", {})
    stage, hpz = zero.get("stage", 0), zero.get("zero_hpz_partition_size", 1)
    report = topology.check_topology(
        pool,
        zero_stage=stage if isinstance(stage, int) else 3,  # "auto": the script decides; check the strictest
        hpz=hpz if isinstance(hpz, int) else 1,
        quantized_weights=zero.get("zero_quantized_weights") is True,
        quantized_gradients=zero.get("zero_quantized_gradients") is True,
    )
    errors = [*report.errors, *accelerate_config.check_launcher(job.spec.train.launcher, pool), *_files(job)]
    if errors:
        raise JobFileError(*errors)
    return tuple(str(warning) for warning in report.warnings)


def _files(job: LoadedJob) -> list[Problem]:
    """Check what must exist on this machine too."""
    spec = job.spec
    script = spec.train.script_path(job.base_dir)
    problems = []
    if spec.train.snapshot or spec.cluster.backend == "local":
        problems += _missing("train.workdir", spec.train.workdir_path(job.base_dir), folder=True)
        problems += _missing("train.script", script) if script and not problems else []
    if spec.cluster.backend != "local" and '"' in str(spec.run_root):
        what = "a double quote in the path cannot be written into an ssh configuration"
        problems.append(Problem(what, "run_root", str(spec.run_root), "choose a path without one"))
    problems += _missing("cluster.ssh.config", spec.cluster.ssh.config)
    problems += _missing("cluster.ssh.identity", spec.cluster.ssh.identity)
    return problems + _missing("templates", spec.templates, folder=True)


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


def _slot_filter(pool: HostPool) -> str:
    """Return the DeepSpeed filter that selects the pool from the hostfile we render.

    It is there for people and other tools: our agents take their slots from the plan. A name that
    DeepSpeed's filters cannot say (IPv6) therefore costs only the filter.
    """
    from orchestrator.errors import FilterError  # noqa: PLC0415
    from orchestrator.hosts.dialects import deepspeed_filter  # noqa: PLC0415

    whole = HostPool(tuple(Host(h.name, tuple(range(max(h.slots) + 1))) for h in pool.hosts))
    try:
        return deepspeed_filter(whole, pool)
    except FilterError:
        return ""


def _deepspeed(job: LoadedJob, pool: HostPool) -> dict[str, Any] | None:
    if job.spec.deepspeed is None:
        return None
    from orchestrator.configs import deepspeed_config  # noqa: PLC0415

    return deepspeed_config.build(job.spec.deepspeed, pool, job.base_dir)


def _env_file(job: LoadedJob) -> dict[str, str]:
    if job.spec.train.env_file is None:
        return {}
    from orchestrator.job.envfile import read_env_file  # noqa: PLC0415

    return read_env_file(job.spec.train.env_file)


def _secrets(job: LoadedJob, environ: Mapping[str, str]) -> dict[str, str]:
    absent = [name for name in job.spec.train.secrets if name not in environ]
    if absent:
        fix = f"export {absent[0]}=… before submit, or take it out of train.secrets"
        raise JobFileError(
            *(Problem("not set in the environment", "train.secrets", name, fix) for name in absent)
        )
    return {name: environ[name] for name in job.spec.train.secrets}


def create(prepared: Prepared) -> RunDir:
    """Write the run directory; nothing is started yet.

    Raises:
        SubmitError: it cannot be written, or this machine lacks what the backend needs.
    """
    _need_tools(prepared.plan.backend)
    run_dir = RunDir(Path(prepared.plan.run_dir))
    try:
        run_dir.path.mkdir(parents=True)
        _write(run_dir, prepared)
    except (OSError, SubmitError) as error:
        shutil.rmtree(run_dir.path, ignore_errors=True)  # half a run directory is no use to anybody
        if isinstance(error, SubmitError):
            raise
        problem = Problem(
            f"cannot write the run directory: {error.strerror}",
            "run_root",
            error.filename or str(run_dir.path),
        )
        raise SubmitError(problem) from error
    return run_dir


def _need_tools(backend: str) -> None:
    """Check that this machine can start anything on other hosts."""
    programs = {"pdsh": ("pdsh", "ssh"), "ssh": ("ssh",)}.get(backend, ())
    problems = [
        Problem(f"{name} is not installed on this machine", "cluster.backend", backend, f"install {name}")
        for name in programs
        if shutil.which(name) is None
    ]
    if backend == "ssh" and importlib.util.find_spec("paramiko") is None:
        fix = "pip install 'zeropp-orchestrator[ssh]', or use backend: pdsh"
        problems.append(
            Problem("paramiko is not installed beside orchestrate", "cluster.backend", "ssh", fix)
        )
    if problems:
        raise SubmitError(*problems)


def _write(run_dir: RunDir, prepared: Prepared) -> None:
    from orchestrator.bundle import secrets_text, write_bundle  # noqa: PLC0415
    from orchestrator.snapshot import take_snapshot  # noqa: PLC0415

    plan = prepared.plan
    write_text(run_dir.job_file, prepared.job.text)
    write_text(run_dir.plan_file, plan.to_json())
    write_bundle(run_dir, prepared.files, attempt=1)
    if plan.snapshot:
        run_dir.workdir.mkdir()
        take_snapshot(Path(plan.workdir), run_dir.workdir, leave_out=run_dir.path.parent)
    if plan.secrets:
        write_text(run_dir.secrets_file, secrets_text(prepared.secrets), 0o600)
    run_dir.write_status(State.CREATED)


def start(run_dir: RunDir, job_path: Path) -> int:
    """Start the run's supervisor in a session of its own; return its pid.

    It outlives the terminal: its own session, no controlling terminal, output to `supervisor.log`.
    """
    plan = run_dir.plan()
    record = {
        "run_id": plan.run_id,
        "name": plan.name,
        "created": plan.created,
        "job_file": str(job_path.absolute()),
        "submit_host": socket.gethostname(),
        "user": os.environ.get("USER", str(os.getuid())),
        "orchestrate": __version__,
    }
    write_json(run_dir.record_file, record)
    registry.remember(run_dir.path)
    return start_supervisor(run_dir)


def start_supervisor(run_dir: RunDir) -> int:
    """Start a supervisor for a run that has none: a new run, or one whose supervisor is gone."""
    with run_dir.supervisor_log.open("ab") as log:
        process = subprocess.Popen(
            [run_dir.plan().supervisor_python, "-m", "orchestrator.supervisor", str(run_dir.path)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us: not ours to wait for
    return process.pid
