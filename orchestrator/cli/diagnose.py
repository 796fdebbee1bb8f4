"""`orchestrate diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.output import coloured, print_json, text_width
from orchestrator.cli.runs import complete_run
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.rundir import AttemptDir


@click.command("diagnose")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--attempt", type=click.IntRange(min=1), help="Which attempt; the run's end when not given.")
@click.option(
    "--patterns",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A YAML file with patterns of your own; may be given again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def diagnose_command(
    run: str, attempt: int | None, patterns: tuple[str, ...], as_json: bool, run_root: Path
) -> int:
    """Say what failed first in a run, what kind of failure it is, and what to try.

    RUN is a run id, also that of a sweep's point (SWEEP.3), a unique beginning of one, a run directory, or
    `last`. Made from exit codes, signals and their times, the ranks' logs, the kernel's and the scheduler's
    words. Patterns of your own come before those it has; `monitor.patterns` in the job file names their
    files for good:

    \b
      categories:
        licence: {title: no licence is free, advice: [Ask for one.]}
      patterns:
        - {category: licence, match: 'no licence for (?P<what>.+)', say: 'no licence for {what}'}
    """  # noqa: D301 - \b is click's own mark
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.diagnose import diagnose

    if (code := forward(run, run_root)) is not None:
        return code
    found = registry.find(run, run_root)
    _see_attempt(found.attempts(), attempt)
    told = diagnose(found, attempt, patterns=patterns)
    if as_json:
        print_json(told.to_json())
        return 0
    from orchestrator.diagnose.show import screen

    state = State(told.state) if told.state in State.__members__ else State.UNKNOWN
    click.echo(f"{click.style(told.run_id, bold=True)}  {coloured(state)}")
    for line in screen(found, told, width=text_width()):
        click.echo(line)
    return 0


def _see_attempt(attempts: list[AttemptDir], number: int | None) -> None:
    numbers = [attempt.number for attempt in attempts]
    if number is not None and number not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise click.BadParameter(f"there is no attempt {number}; there is {there}", param_hint="--attempt")
