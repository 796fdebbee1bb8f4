"""`orchestrate plan`: everything that can be told of a job before it waits in a queue."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import print_json

if TYPE_CHECKING:
    from orchestrator.forecast import PlanDocument
    from orchestrator.job import LoadedJob

_WIDTH = 100  # columns of a pipe
_LEAST = 60


@click.command("plan")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value: --set cluster.nodes=4."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, with bytes and seconds as numbers."
)
@click.option("--suggest", is_flag=True, help="Rank the settings that fit, the fastest first.")
@click.option("--write", is_flag=True, help="With --suggest: write the best settings into the job file.")
@click.option("--lossy", is_flag=True, help="With --write: also what quantizes weights or gradients.")
@click.option(
    "--quick", is_flag=True, help="Start no process: leave model.config and the installed DeepSpeed alone."
)
def plan_command(job: Path, overrides: tuple[str, ...], **flags: bool) -> int:
    """Show what JOB would run on and need: hosts, ranks, memory, traffic, step times, and what is wrong.

    Nothing is submitted or written, and no host is asked. Exit code 2 when the job has errors.
    """
    suggest, write, as_json = flags["suggest"], flags["write"], flags["as_json"]
    if write and not suggest:
        raise click.UsageError("--write goes with --suggest")
    if flags["lossy"] and not write:
        raise click.UsageError("--lossy goes with --suggest --write")
    if write and overrides:
        raise click.UsageError("--write changes the job file itself; put what --set says there first")
    from orchestrator.forecast.make import Wanted, make_plan

    loaded, points = _first_point(job, overrides)
    plan = make_plan(loaded, os.environ, Wanted(quick=flags["quick"], suggest=suggest, points=points))
    if as_json:
        print_json(plan.to_json())
    else:
        _print(plan)
    if write:
        _write(job, plan, as_json=as_json, lossy=flags["lossy"])
    return 2 if plan.has_errors else 0


def _first_point(job: Path, overrides: tuple[str, ...]) -> tuple[LoadedJob, int]:
    """Return the job, or the first point of a sweep, and how many points there are."""
    from orchestrator.job import load_job

    loaded = load_job(job, overrides)
    slurm = loaded.spec.cluster.slurm
    if loaded.spec.matrix is None and (slurm is None or slurm.array is None):
        return loaded, 0
    from orchestrator.job.matrix import points_of

    points = points_of(loaded)
    first = load_job(job, (*overrides, *points[0].settings), base_dir=loaded.base_dir)
    return first, len(points)


def _print(plan: PlanDocument) -> None:
    from orchestrator.forecast.draw import draw

    width = max(_LEAST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WIDTH
    for line in draw(plan, min(width, 120), _style):
        click.echo(line)


def _style(text: str, kind: str) -> str:
    """Return text in the look of its kind (click takes it off in a pipe)."""
    looks = {
        "title": {"bold": True},
        "good": {"fg": "green"},
        "bad": {"fg": "red", "bold": True},
        "mark": {"fg": "yellow"},
        "dim": {"dim": True},
    }
    return click.style(text, **looks[kind])  # type: ignore[arg-type]


def _write(path: Path, plan: PlanDocument, *, as_json: bool, lossy: bool) -> None:
    """Write the best suggestion into the job file, and show what changed there."""
    from orchestrator.forecast.write import write_best

    for line in write_best(path, plan, lossy=lossy):
        click.echo(line, err=as_json)
