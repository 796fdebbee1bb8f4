"""From a job file with points to a sweep directory, and to its start."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator import prepare, registry, submit
from orchestrator.errors import JobFileError, Problem, SubmitError
from orchestrator.job import load_job
from orchestrator.job.matrix import at_once
from orchestrator.rundir import RunDir, read_json, write_json, write_text
from orchestrator.states import State
from orchestrator.sweep.sweepdir import SweepDir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from orchestrator.job import LoadedJob
    from orchestrator.job.matrix import Point
    from orchestrator.prepare import Prepared
    from orchestrator.slurm.allocation import Allocation


@dataclass(frozen=True)
class PreparedSweep:
    """A sweep that is ready to be written and started.

    Attributes:
        job: the sweep's job file.
        directory: where it will be.
        points: each point with its prepared run, in order.
        parallel: how many may run at once; None for no limit.
        script: the batch script of the array; "" where the points are started one after another.
    """

    job: LoadedJob
    directory: SweepDir
    points: tuple[tuple[Point, Prepared], ...]
    parallel: int | None
    script: str


def prepare_sweep(
    job: LoadedJob,
    points: Sequence[Point],
    overrides: Sequence[str],
    environ: Mapping[str, str],
    allocation: Allocation | None = None,
    *,
    sweep_id: str | None = None,
) -> PreparedSweep:
    """Prepare every point: a sweep that gets past this is right in all its points.

    Raises:
        JobFileError: a point is wrong, or points ask Slurm for different things.
    """
    directory = SweepDir(job.spec.run_root.absolute() / (sweep_id or prepare.new_run_id(job.spec.name)))
    found: list[tuple[Point, Prepared]] = []
    problems: dict[str, Problem] = {}
    for point in points:
        try:
            loaded = load_job(job.path, (*overrides, *point.settings), base_dir=job.base_dir)
            found.append((point, _prepare_point(loaded, directory, point, environ, allocation)))
        except JobFileError as error:
            problems |= {str(problem): _of_point(point, problem) for problem in error.problems}
    if problems:
        raise JobFileError(*problems.values())
    parallel, script = at_once(job), ""
    if job.spec.cluster.backend == "slurm" and allocation is None:
        script = _array_script(job, directory, found, parallel)
    return PreparedSweep(job, directory, tuple(found), parallel, script)


def _prepare_point(
    loaded: LoadedJob,
    directory: SweepDir,
    point: Point,
    environ: Mapping[str, str],
    allocation: Allocation | None,
) -> Prepared:
    spec = loaded.spec.model_copy(update={"run_root": directory.path})
    ready = replace(loaded, spec=spec)
    try:
        return prepare.prepare(ready, environ, directory.run_id(point.index), allocation)
    except JobFileError as error:
        raise JobFileError(*map(loaded.located, error.problems)) from error


def _of_point(point: Point, problem: Problem) -> Problem:
    return replace(problem, what=f"{problem.what} (in point {point.index}: {point.label})")


def _array_script(
    job: LoadedJob,
    directory: SweepDir,
    points: Sequence[tuple[Point, Prepared]],
    parallel: int | None,
) -> str:
    from orchestrator.render import render_array  # noqa: PLC0415 - only sweeps on Slurm

    first_point, first = points[0]
    for point, ready in points:
        if _asked(ready) != _asked(first):
            what = f"points {first_point.index} and {point.index} ask Slurm for different things in one array"
            fix = "keep cluster, name and container out of the matrix, or submit a sweep for each"
            raise JobFileError(Problem(what, job.source.where(("matrix",)), fix=fix))
    return render_array(first.plan, str(directory.path), [point.index for point, _ in points], parallel)


def _asked(ready: Prepared) -> object:
    return ready.plan.slurm, ready.plan.name, ready.plan.supervisor_python


def create_sweep(sweep: PreparedSweep, job_path: Path) -> SweepDir:
    """Write the sweep directory and every point's run directory; nothing is started yet.

    Raises:
        SubmitError: it cannot be written, or this machine lacks what the backend needs.
    """
    directory = sweep.directory
    try:
        directory.path.mkdir(parents=True)
        for point, ready in sweep.points:
            run_dir = submit.create(ready)
            submit.record_run(run_dir, ready.plan, job_path, sweep=directory.sweep_id, point=point.label)
            run_dir.write_status(State.PENDING, "waits for its turn in the sweep")
        write_text(directory.job_file, sweep.job.text)
        if sweep.script:
            write_text(directory.batch_script, sweep.script, 0o755)
        write_json(directory.sweep_file, _record(sweep))
    except (OSError, SubmitError) as error:
        shutil.rmtree(directory.path, ignore_errors=True)
        if isinstance(error, SubmitError):
            raise
        problem = Problem(f"cannot write the sweep: {error.strerror}", "run_root", str(directory.path))
        raise SubmitError(problem) from error
    registry.remember(directory.path)
    return directory


def _record(sweep: PreparedSweep) -> dict[str, object]:
    return {
        "name": sweep.job.spec.name,
        "created": time.time(),
        "backend": sweep.job.spec.cluster.backend,
        "parallel": sweep.parallel,
        "points": [{"index": point.index, "label": point.label} for point, _ in sweep.points],
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
            submit.refuse(run, str(error))
        raise
    submitted = time.time()
    for point, run in directory.points():
        _note_job(run, f"{job_id}_{point['index']}", submitted)
    return job_id


def _note_job(run: RunDir, job_id: str, submitted: float) -> None:
    if read_json(run.slurm_file) is None:
        write_json(run.slurm_file, {"job_id": job_id, "submitted": submitted})


def start_driver(directory: SweepDir) -> None:
    """Start the process that runs one point after another; it outlives the terminal."""
    with directory.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.sweep", str(directory.path)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us: not ours to wait for
