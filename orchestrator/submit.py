"""From a prepared job to a started run: write the run directory, start its supervisor or submit it."""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import __version__, registry
from orchestrator.agent.checks import versions
from orchestrator.errors import JobFileError, Problem, SubmitError
from orchestrator.rundir import RunDir, write_json, write_text
from orchestrator.source import told_source
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.judge import Verdict

if TYPE_CHECKING:
    from orchestrator.job import LoadedJob
    from orchestrator.plan import LaunchPlan
    from orchestrator.prepare import Prepared


_PROGRAMS = {"pdsh": ("pdsh", "ssh"), "ssh": ("ssh",), "slurm": ("sbatch", "srun", "scontrol")}


def create(prepared: Prepared, runs: Path | None = None) -> RunDir:
    """Write the run directory; nothing is started yet.

    Args:
        prepared: the run.
        runs: the folder of all runs, which a snapshot leaves out; by default the one that the run lies in.

    Raises:
        SubmitError: it cannot be written, or this machine lacks what the backend needs.
    """
    _need_tools(prepared.plan.backend)
    run_dir = RunDir(Path(prepared.plan.run_dir))
    _make(run_dir)
    try:
        _write(run_dir, prepared, runs or run_dir.path.parent)
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


def _make(run_dir: RunDir) -> None:
    try:
        run_dir.path.mkdir(parents=True)
    except OSError as error:  # one that is there already is another run's
        what = f"cannot write the run directory: {error.strerror}"
        raise SubmitError(Problem(what, "run_root", str(run_dir.path))) from error


def _need_tools(backend: str) -> None:
    """Check that this machine can start anything on other hosts."""
    programs = _PROGRAMS.get(backend, ())
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
    if backend == "slurm" and importlib.util.find_spec("submitit") is None:
        fix = "pip install 'zeropp-orchestrator[slurm]'"
        problems.append(
            Problem("submitit is not installed beside orchestrate", "cluster.backend", "slurm", fix)
        )
    if problems:
        raise SubmitError(*problems)


def _write(run_dir: RunDir, prepared: Prepared, runs: Path) -> None:
    from orchestrator.bundle import secrets_text, write_bundle  # noqa: PLC0415
    from orchestrator.snapshot import take_snapshot  # noqa: PLC0415

    plan = prepared.plan
    write_text(run_dir.job_file, prepared.job.text)
    write_text(run_dir.plan_file, plan.to_json())
    write_bundle(run_dir, prepared.files, attempt=1)
    _keep_config(run_dir, prepared.job)
    if plan.snapshot:
        run_dir.workdir.mkdir()
        take_snapshot(Path(plan.workdir), run_dir.workdir, leave_out=runs)
    if plan.secrets:
        write_text(run_dir.secrets_file, secrets_text(prepared.secrets), 0o600)
    if plan.notify:
        from orchestrator.notify.store import write_values  # noqa: PLC0415 - few runs tell anybody

        write_values(run_dir, prepared.told)
    run_dir.write_status(State.CREATED)


def _keep_config(run_dir: RunDir, job: LoadedJob) -> None:
    """Keep DeepSpeed's file as it is now: it is read again for other hosts, and when the run is resumed."""
    deepspeed = job.spec.deepspeed
    if deepspeed is not None and deepspeed.config_file is not None:
        shutil.copyfile(job.base_dir / deepspeed.config_file.expanduser(), run_dir.ds_source)


def start(run_dir: RunDir) -> None:
    """Start the run's supervisor, or submit the batch script that does.

    Raises:
        SubmitError: Slurm refuses the job; the run directory stays, with a verdict that says so.
    """
    plan = run_dir.plan()
    if plan.slurm is None or plan.slurm.in_allocation:
        start_supervisor(run_dir)
    else:
        submit_batch(run_dir)


def record_run(run_dir: RunDir, plan: LaunchPlan, job_path: Path, **more: str) -> None:
    """Write down who submits the run, when and where; remember where it is, if it is no part of a sweep."""
    record = {
        "run_id": plan.run_id,
        "name": plan.name,
        "created": plan.created,
        "job_file": str(job_path.absolute()),
        "submit_host": socket.gethostname(),
        "user": _user(),
        "orchestrate": __version__,
        "versions": versions(),
        "git": told_source(_code_folder(plan)),
        **more,
    }
    write_json(run_dir.record_file, record)
    if "sweep" not in more:
        registry.remember(run_dir.path)


def _code_folder(plan: LaunchPlan) -> Path:
    """Return where the code is on this machine: a container's workdir may be a path inside of it."""
    return Path(plan.workdir) if Path(plan.workdir).is_dir() else Path(plan.base_dir)


def submit_batch(run_dir: RunDir) -> str:
    """Submit a run's batch script; return the Slurm job's id.

    Raises:
        SubmitError: Slurm refuses the job.
    """
    from orchestrator.slurm.executor import submit_script  # noqa: PLC0415 - only Slurm jobs need submitit

    run_dir.write_status(State.PENDING, "handed to Slurm")  # before: a job may start at once
    try:
        job_id = submit_script(run_dir.batch_script)
    except SubmitError as error:
        refuse(run_dir, error)
        raise
    write_json(run_dir.slurm_file, {"job_id": job_id, "submitted": time.time()})
    return job_id


def refuse(run_dir: RunDir, error: SubmitError) -> None:
    """Write the verdict on a run that was never taken, and its diagnosis, which has the way out."""
    from orchestrator.diagnose import diagnose  # noqa: PLC0415 - most jobs are taken

    now, why = time.time(), "; ".join(problem.what for problem in error.problems)
    run_dir.write_verdict(to_json(Verdict(State.FAILED, why), run_dir.run_id, now, now))
    run_dir.forget_secrets()
    with contextlib.suppress(JobFileError):  # a file of the user's patterns that has gone meanwhile
        write_json(run_dir.diagnosis_file, diagnose(run_dir).to_json())


def start_supervisor(run_dir: RunDir) -> int:
    """Start a supervisor for a run that has none: a new run, or one whose supervisor is gone.

    It outlives the terminal: its own session, no controlling terminal, output to `supervisor.log`.
    """
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
    run_dir.note_start(process.pid)
    return process.pid


def _user() -> str:
    """Return who submits; a container may have a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return str(os.getuid())
