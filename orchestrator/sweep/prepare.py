"""Prepare every point of a sweep: what gets past this is right in all its points. Nothing is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.forecast.examine import prepare_or_tell
from orchestrator.job import load_job
from orchestrator.job.matrix import at_once
from orchestrator.prepare import new_run_id
from orchestrator.sweep.sweepdir import SweepDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
    """Prepare every point of a sweep.

    Args:
        job: the sweep's job file.
        points: its points.
        overrides: the settings that `job` was loaded with.
        environ: where the values of `train.secrets` come from.
        allocation: the Slurm allocation that the user holds, to run in that one.
        sweep_id: the id to use; a new one when not given.

    Raises:
        JobFileError: a point is wrong, or points get in each other's way.
    """
    directory = SweepDir(job.spec.run_root.absolute() / (sweep_id or new_run_id(job.spec.name)))

    def prepared(point: Point) -> Prepared:
        loaded = load_job(job.path, (*overrides, *point.settings), base_dir=job.base_dir)
        return _prepare_point(loaded, directory, point, environ, allocation)

    found = _prepare_all(job, points, prepared)
    if job.spec.cluster.backend != "slurm":
        return PreparedSweep(job, directory, tuple(found), at_once(job), "")
    if allocation is not None:  # all points get the same hosts
        return PreparedSweep(job, directory, tuple(found), at_once(job) or 1, "")
    return PreparedSweep(job, directory, tuple(found), at_once(job), _array_script(job, directory, found))


def _prepare_all(
    job: LoadedJob, points: Sequence[Point], prepared: Callable[[Point], Prepared]
) -> list[tuple[Point, Prepared]]:
    """Return every point with its run; JobFileError with the problems of all, those of many points once."""
    found: list[tuple[Point, Prepared]] = []
    problems: dict[Problem, Problem] = {}
    for point in points:
        try:
            found.append((point, prepared(point)))
        except JobFileError as error:
            for problem in (_placed(point, each) for each in error.problems):
                problems.setdefault(problem, _of_point(point, problem))
    problems |= {problem: problem for problem in _shared_checkpoints(job, found)}
    if problems:
        raise JobFileError(*problems.values())
    return found


def _prepare_point(
    loaded: LoadedJob,
    directory: SweepDir,
    point: Point,
    environ: Mapping[str, str],
    allocation: Allocation | None,
) -> Prepared:
    spec = loaded.spec.model_copy(update={"run_root": directory.path})
    placed = replace(loaded, spec=spec)
    return prepare_or_tell(placed, environ, directory.run_id(point.index), allocation)


def _placed(point: Point, problem: Problem) -> Problem:
    """Return a problem of a value with the line of that value: the user has typed no `--set`."""
    for setting, place in point.places.items():
        if f"{problem.where}: ".startswith(f"--set {setting}: "):
            return replace(problem, where=place)
    return problem


def _of_point(point: Point, problem: Problem) -> Problem:
    return replace(problem, what=f"{problem.what} (in point {point.index}: {point.label})")


def _shared_checkpoints(job: LoadedJob, points: Sequence[tuple[Point, Prepared]]) -> Iterator[Problem]:
    """Tell of points that would go on, after a restart, from what another one has saved."""
    seen: dict[str, Point] = {}
    for point, ready in points:
        folder = ready.plan.checkpoint_dir
        if folder is None or ready.plan.resume == "never":
            continue
        first = seen.setdefault(folder, point)
        if first is not point:
            what = f"points {first.index} and {point.index} would save in one folder and resume from it"
            fix = "end it in {array_index}, or in a name of the matrix, such as {lr}; or set resume: never"
            yield Problem(what, job.source.where(("train", "checkpoint_dir")), folder, fix)
            return


def _array_script(job: LoadedJob, directory: SweepDir, points: Sequence[tuple[Point, Prepared]]) -> str:
    from orchestrator.render import render_array  # noqa: PLC0415 - only sweeps on Slurm

    problems = list(_no_array(job, [_asked(ready) for _, ready in points]))
    if problems:
        raise JobFileError(*problems)
    indexes = [point.index for point, _ in points]
    return render_array(points[0][1].plan, str(directory.path), indexes, at_once(job))


def _asked(ready: Prepared) -> tuple[str, ...]:
    """Return what a point needs of the batch script, which all points share."""
    from orchestrator.slurm.batch import array_lines  # noqa: PLC0415 - only sweeps on Slurm

    plan = ready.plan
    return (*array_lines(plan, "", ""), f"templates: {plan.templates}", plan.supervisor_python)


def _no_array(job: LoadedJob, asked: Sequence[tuple[str, ...]]) -> Iterator[Problem]:
    """Tell which parameters change what Slurm is asked for: only the array as a whole asks it."""
    if all(each == asked[0] for each in asked):
        return
    matrix = job.spec.matrix or {}
    sizes = [len(values) for values in matrix.values()]
    for number, key in enumerate(matrix):
        step = math.prod(sizes[number + 1 :])  # to the point in which only this one differs
        other = next((line for i in range(1, sizes[number]) for line in _new(asked[0], asked[i * step])), "")
        if other:
            what = "changes what Slurm is asked for, and all points are tasks of one array"
            fix = "remove it from matrix and submit a sweep for each value (--set)"
            yield Problem(what, job.source.where(("matrix", key)), other, fix)


def _new(first: Sequence[str], other: Sequence[str]) -> list[str]:
    return [line for line in other if line not in first]
