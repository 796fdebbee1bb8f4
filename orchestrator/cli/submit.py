"""`orchestrate submit` and `orchestrate render`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import print_json
from orchestrator.cli.submitted import (
    Options,
    dry_run_json,
    print_files,
    print_not_started,
    print_started,
    shape,
)
from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.job import LoadedJob
    from orchestrator.job.matrix import Point
    from orchestrator.prepare import Prepared
    from orchestrator.render import RenderedFile
    from orchestrator.slurm.allocation import Allocation

_JOB = click.argument("job", type=click.Path(path_type=Path))
_SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: --set cluster.nodes=4."
)


def _load(job: Path, overrides: tuple[str, ...]) -> LoadedJob:
    from orchestrator.job import load_job

    return load_job(job, overrides)


def _prepare(
    job: Path | LoadedJob,
    overrides: tuple[str, ...] = (),
    *,
    in_allocation: bool = False,
    run_id: str | None = None,
) -> Prepared:
    from orchestrator.forecast.examine import prepare_or_tell

    loaded = _load(job, overrides) if isinstance(job, Path) else job
    given = _allocation(loaded) if in_allocation else None
    prepared = prepare_or_tell(loaded, os.environ, run_id, given)
    for warning in prepared.warnings:
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)
    return prepared


def _points(job: LoadedJob) -> list[Point]:
    """Return the points of a sweep; a single run costs no import."""
    slurm = job.spec.cluster.slurm
    if job.spec.matrix is None and (slurm is None or slurm.array is None):
        return []
    from orchestrator.job.matrix import points_of

    return points_of(job)


def _allocation(job: LoadedJob) -> Allocation:
    from orchestrator.slurm.allocation import read_allocation

    if job.spec.cluster.backend != "slurm":
        what, fix = "only jobs for Slurm run in an allocation", "set cluster.backend: slurm"
        raise JobFileError(Problem(what, "--in-allocation", job.spec.cluster.backend, fix))
    return read_allocation(os.environ)


@click.command("submit")
@_JOB
@_SET
@click.option("--dry-run", is_flag=True, help="Check everything, write and start nothing.")
@click.option("--follow", "-f", is_flag=True, help="Show the run until it ends; Ctrl-C leaves it alone.")
@click.option("--json", "as_json", is_flag=True, help="Print run id and directory for scripts.")
@click.option("--in-allocation", is_flag=True, help="Run in the Slurm allocation that this shell holds.")
@click.option("--no-start", is_flag=True, help="Write the run directory, start nothing, and say what would.")
@click.option("--run-id", hidden=True, help="The run's id; it must be a new one.")
def submit_command(
    job: Path, overrides: tuple[str, ...], run_id: str | None, in_allocation: bool, **flags: bool
) -> int:
    """Start the job described in JOB (a YAML file) and return at once.

    The run goes on when this terminal is closed.
    """
    options = Options(**flags)
    loaded = _load(job, overrides)
    if loaded.spec.cluster.login is not None:
        if in_allocation:
            raise click.UsageError("--in-allocation is for a shell on the cluster; cluster.login is set")
        from orchestrator.cli.login import submit_through_login

        return submit_through_login(loaded, overrides, options)
    points = _points(loaded)
    if points:
        return _submit_points(
            job, loaded, points, overrides, options, in_allocation=in_allocation, sweep_id=run_id
        )
    return _submit_run(job, _prepare(loaded, in_allocation=in_allocation, run_id=run_id), options)


def _submit_points(
    job: Path,
    loaded: LoadedJob,
    points: list[Point],
    overrides: tuple[str, ...],
    options: Options,
    *,
    in_allocation: bool,
    sweep_id: str | None,
) -> int:
    from orchestrator.cli.sweep import prepare_points, submit_sweep

    given = _allocation(loaded) if in_allocation else None
    sweep = prepare_points(loaded, points, overrides, given, sweep_id)
    return submit_sweep(sweep, job, options)


def _submit_run(job: Path, prepared: Prepared, options: Options) -> int:
    from orchestrator import submit

    if options.dry_run:
        _print_dry_run(prepared, as_json=options.as_json)
        return 0
    run_dir = submit.create(prepared)
    submit.record_run(run_dir, prepared.plan, job)
    if options.no_start:
        return print_not_started(run_dir, prepared, as_json=options.as_json)
    submit.start(run_dir)
    print_started(run_dir, prepared, options)
    if options.follow:
        from orchestrator.monitor.follow import follow_run

        return follow_run(run_dir)
    return 0


def _print_dry_run(prepared: Prepared, *, as_json: bool) -> None:
    if as_json:
        print_json(dry_run_json(prepared))
        return
    click.echo(f"{prepared.plan.name}: {shape(prepared)}")
    click.echo(f"would write {prepared.plan.run_dir}/")
    for file in prepared.files:
        click.echo(f"  {file.path}")
    click.echo("nothing was written or started; `orchestrate render` shows the files")


@click.command("render")
@_JOB
@_SET
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write the files into this folder.")
def render_command(job: Path, overrides: tuple[str, ...], output: Path | None) -> int:
    """Print exactly the files that submit would write for JOB; values of secrets are left out."""
    loaded = _load(job, overrides)
    points = _points(loaded)
    if points:
        return _render_points(loaded, points, overrides, output)
    prepared = _prepare(loaded)
    if output is not None:
        _write(prepared.files, output)
        return 0
    print_files(prepared)
    return 0


def _render_points(
    job: LoadedJob, points: list[Point], overrides: tuple[str, ...], output: Path | None
) -> int:
    from orchestrator.cli.sweep import prepare_points, show_files
    from orchestrator.render import RenderedFile

    sweep = prepare_points(job, points, overrides, None)
    if output is None:
        show_files(sweep)
        return 0
    if sweep.script:
        _write([RenderedFile("slurm.sbatch", sweep.script, executable=True)], output)
    for point, ready in sweep.points:
        _write(ready.files, output / str(point.index))
    return 0


def _write(files: Iterable[RenderedFile], output: Path) -> None:
    from orchestrator.errors import Problem, SubmitError

    try:
        for file in files:
            path = output / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, encoding="utf-8")
            path.chmod(0o755 if file.executable else 0o644)
            click.echo(str(path))
    except OSError as error:
        raise SubmitError(Problem(f"cannot write: {error.strerror}", "--output", error.filename)) from error
