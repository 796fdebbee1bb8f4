"""What `submit`, `render`, `status`, `list` and `cancel` do for a sweep."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, coloured, print_json, print_table
from orchestrator.states import State
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.cli.submitted import Options
    from orchestrator.job import LoadedJob
    from orchestrator.job.matrix import Point
    from orchestrator.slurm.allocation import Allocation
    from orchestrator.sweep.create import PreparedSweep
    from orchestrator.sweep.sweepdir import SweepDir


def prepare_points(
    job: LoadedJob,
    points: Sequence[Point],
    overrides: tuple[str, ...],
    allocation: Allocation | None,
    sweep_id: str | None = None,
) -> PreparedSweep:
    """Prepare every point of a sweep; print each warning once."""
    from orchestrator.sweep.create import prepare_sweep

    sweep = prepare_sweep(job, points, overrides, os.environ, allocation, sweep_id=sweep_id)
    for warning in dict.fromkeys(word for _, ready in sweep.points for word in ready.warnings):
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)
    return sweep


def submit_sweep(sweep: PreparedSweep, job_path: Path, options: Options) -> int:
    """Write and start a sweep; return the exit code."""
    from orchestrator.sweep.create import create_sweep, start_sweep

    if options.dry_run and options.as_json:
        print_json({"dry_run": True, "name": sweep.job.spec.name, **_described(sweep)})
        return 0
    if options.dry_run:
        verb = "is" if len(sweep.points) == 1 else "are"
        click.echo(f"{sweep.job.spec.name}: {counted(len(sweep.points), 'point')} {verb} right")
        _print_points(sweep)
        click.echo("nothing was written or started; `orchestrate render` shows the files")
        return 0
    directory = create_sweep(sweep, job_path)
    job_id = None if options.no_start else start_sweep(directory)
    command = _start_command(directory) if options.no_start else None
    if options.as_json:
        _print_as_json(sweep, job_id, command)
    else:
        _print_submitted(sweep, job_id, command)
    if options.follow and command is None:
        return follow_sweep(directory)
    return 0


def _start_command(directory: SweepDir) -> list[str]:
    if directory.batch_script.exists():
        return ["sbatch", str(directory.batch_script)]
    return [sys.executable, "-m", "orchestrator", "supervise", str(directory.path)]


def _print_as_json(sweep: PreparedSweep, job_id: str | None, command: list[str] | None) -> None:
    more = {"slurm_job_id": job_id} if command is None else {"command": command}
    print_json({**_described(sweep), **more})


def _described(sweep: PreparedSweep) -> dict[str, Any]:
    directory = sweep.directory
    points = [{"run_id": directory.run_id(point.index), "label": point.label} for point, _ in sweep.points]
    return {"sweep_id": directory.sweep_id, "sweep_dir": str(directory.path), "points": points}


def _print_submitted(sweep: PreparedSweep, job_id: str | None, command: list[str] | None) -> None:
    directory = sweep.directory
    limit = "all at once" if sweep.parallel is None else f"at most {sweep.parallel} at a time"
    click.echo(f"{click.style(directory.sweep_id, bold=True)}  {counted(len(sweep.points), 'run')}, {limit}")
    click.echo(f"directory  {directory.path}")
    if job_id:
        click.echo(f"Slurm job  {job_id}")
    _print_points(sweep)
    if command is not None:
        click.echo(f"start it with   {shlex.join(command)}")
    else:
        click.echo(f"status     orchestrate status {directory.sweep_id}")


def _print_points(sweep: PreparedSweep) -> None:
    rows = [[sweep.directory.run_id(point.index), point.label] for point, _ in sweep.points]
    print_table(["run", "point"], rows)


def show_files(sweep: PreparedSweep) -> None:
    """Print the array's script, and the files of the first point."""
    from orchestrator.cli.submitted import print_files

    if sweep.script:
        click.echo(click.style("# ---- slurm.sbatch (of the array)", bold=True))
        click.echo(sweep.script)
    first, ready = sweep.points[0]
    click.echo(
        f"# {counted(len(sweep.points), 'point')}; these are the files of point {first.index}: {first.label}"
    )
    print_files(ready, f"{sweep.directory.run_id(first.index)}/")


def follow_sweep(sweep: SweepDir) -> int:
    """Print every change of a sweep until it has ended; return 0 if every point succeeded, 1 if not."""
    from orchestrator.monitor.sweep import is_driven, sweep_state, wait_for_change

    before: list[tuple[str, State]] = []
    try:
        while True:
            rows = wait_for_change(sweep, before, 30)
            shown = dict(before)
            for row in rows:
                if shown.get(row["run_id"], State.PENDING) != row["state"]:
                    click.echo(f"{row['run_id']}  {coloured(row['state'])}  {row['label']}  {row['reason']}")
            before = [(row["run_id"], row["state"]) for row in rows]
            state, words = sweep_state(rows, driven=is_driven(sweep))
            if state.is_final:
                click.echo(f"\n{coloured(state)}  {words}")
                return 0 if state is State.SUCCEEDED else 1
    except KeyboardInterrupt:
        click.echo(f"\n{sweep.sweep_id} goes on; `orchestrate cancel {sweep.sweep_id}` ends it")
        return 130


def show_status(sweep: SweepDir, *, as_json: bool) -> int:
    """Print one table of all points."""
    from orchestrator.monitor.sweep import point_rows

    rows = point_rows(sweep)
    if as_json:
        print_json(sweep_entry(sweep, rows) | {"points": rows})
        return 0
    entry = sweep_entry(sweep, rows)
    click.echo(f"{click.style(sweep.sweep_id, bold=True)}  {coloured(entry['state'])}  {entry['reason']}")
    click.echo(f"directory  {sweep.path}")
    print_table(["run", "point", "state", "since", "what"], list(map(_row, rows)))
    return 0


def _row(row: dict[str, Any]) -> list[str]:
    since = ago(float(row["since"])) if row["since"] else ""
    return [row["run_id"], row["label"], str(row["state"]), since, row["reason"].split("\n")[0]]


def sweep_entry(sweep: SweepDir, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a sweep as `list` shows it: one line, with the counts of its states."""
    from orchestrator.monitor.sweep import is_driven, sweep_state

    state, words = sweep_state(rows, driven=is_driven(sweep))
    created = float(sweep.read().get("created", 0.0))
    return {
        "run_id": sweep.sweep_id,
        "run_dir": str(sweep.path),
        "created": created,
        "state": state,
        "reason": f"sweep: {words}",
    }


def cancel(sweep: SweepDir, *, as_json: bool = False) -> int:
    """End every point of a sweep; return the exit code."""
    from orchestrator.monitor.sweep import cancel_sweep

    state, words = cancel_sweep(sweep)
    if as_json:
        print_json({"run_id": sweep.sweep_id, "state": state, "reason": words})
    else:
        click.echo(f"{sweep.sweep_id}  {coloured(state)}  {words}")
    return 0 if state.is_final and state is not State.LOST else 1
