"""Write a prepared sweep and start it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from orchestrator import registry, submit
from orchestrator.errors import Problem, SubmitError
from orchestrator.rundir import read_json, write_json, write_text
from orchestrator.states import State
from orchestrator.sweep.prepare import PreparedSweep, prepare_sweep

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir

__all__ = ["PreparedSweep", "create_sweep", "prepare_sweep", "start_driver", "start_sweep"]


def create_sweep(sweep: PreparedSweep, job_path: Path) -> SweepDir:
    """Write the sweep directory and every point's run directory; nothing is started yet.

    Raises:
        SubmitError: it cannot be written, or this machine lacks what the backend needs.
    """
    directory = sweep.directory
    try:
        directory.path.mkdir(parents=True)
    except OSError as error:  # one that is there already is another sweep's
        raise _unwritten(directory, error) from error
    try:
        _write(sweep, job_path)
    except OSError as error:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise _unwritten(directory, error) from error
    except SubmitError:
        shutil.rmtree(directory.path, ignore_errors=True)
        raise
    registry.remember(directory.path)
    return directory


def _unwritten(directory: SweepDir, error: OSError) -> SubmitError:
    return SubmitError(Problem(f"cannot write the sweep: {error.strerror}", "run_root", str(directory.path)))


def _write(sweep: PreparedSweep, job_path: Path) -> None:
    directory = sweep.directory
    for point, ready in sweep.points:
        run_dir = submit.create(ready, runs=directory.path.parent)
        submit.record_run(run_dir, ready.plan, job_path, sweep=directory.sweep_id, point=point.label)
        run_dir.write_status(State.PENDING, "waits for its turn in the sweep")
    write_text(directory.job_file, sweep.job.text)
    if sweep.script:
        write_text(directory.batch_script, sweep.script, 0o755)
    write_json(directory.sweep_file, _record(sweep))  # last: only a whole sweep is one


def _record(sweep: PreparedSweep) -> dict[str, object]:
    return {
        "name": sweep.job.spec.name,
        "created": time.time(),
        "backend": sweep.job.spec.cluster.backend,
        "parallel": sweep.parallel,
        "points": [
            {
                "index": point.index,
                "label": point.label,
                "run_id": sweep.directory.run_id(point.index),
                "overrides": list(point.settings),
            }
            for point, _ in sweep.points
        ],
    }


def start_sweep(directory: SweepDir) -> str | None:
    """Submit the sweep's array and return its job id, or start the process that runs point after point.

    Raises:
        SubmitError: Slurm refuses the array; every point gets a verdict that says so.
    """
    if not directory.batch_script.exists():
        start_driver(directory)
        return None
    from orchestrator.slurm.executor import submit_script  # noqa: PLC0415 - only Slurm jobs need submitit

    try:
        job_id = submit_script(directory.batch_script)
    except SubmitError as error:
        for _, run in directory.points():
            submit.refuse(run, error)
        raise
    submitted = time.time()
    for point, run in directory.points():
        _note_job(run, f"{job_id}_{point['index']}", submitted)
    return job_id


def _note_job(run: RunDir, job_id: str, submitted: float) -> None:
    if read_json(run.slurm_file) is None:
        write_json(run.slurm_file, {"job_id": job_id, "submitted": submitted})


def start_driver(directory: SweepDir) -> None:
    """Start the process that runs one point after another, if none does; it outlives the terminal.

    It gets the sweep's lock from us: whoever looks sees at once that the sweep is being run.
    """
    lock = directory.lock()
    if lock is None:
        return
    try:
        with directory.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.sweep", str(directory.path), str(lock)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock],
            )
    finally:
        os.close(lock)
    process.returncode = 0  # it outlives us: not ours to wait for
