"""`orchestrate status`, `cancel` and `supervise`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, coloured, print_json, print_table
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rundir import RunDir

_LAST_EVENTS = 8


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the run ids that begin so, for the shell."""
    from orchestrator import registry
    from orchestrator.login import records

    root = Path("runs")
    names = [run.run_id for run in registry.all_runs(root)]
    names += [run.run_id for run in records.all_records()]
    for sweep in registry.all_sweeps(root):
        points = sweep.points() if incomplete.startswith(sweep.sweep_id) else []
        names += [sweep.sweep_id, *(run.run_id for _, run in points)]
    return [name for name in names if name.startswith(incomplete)]


_RUN = click.argument("run", default="last", shell_complete=complete_run)
_ROOT = click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.command("status")
@_RUN
@_ROOT
@_JSON
def status_command(run: str, run_root: Path, as_json: bool) -> int:
    """Show what a run is doing, or how it ended and why.

    RUN is the id of a run, of a sweep, or of its point (SWEEP.3); a unique beginning of one; a directory;
    or `last`.
    """
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.monitor.overview import overview
    from orchestrator.monitor.status import current_status, events, host_rows
    from orchestrator.rundir import read_json

    if (code := forward(run, run_root)) is not None:
        return code
    sweep = registry.find_sweep(run, run_root)
    if sweep is not None:
        from orchestrator.cli.sweep import show_status

        return show_status(sweep, as_json=as_json)
    found = registry.find(run, run_root)
    status = current_status(found)
    known = overview(found, status)
    if as_json:
        told = {"diagnosis": read_json(found.diagnosis_file), "verdict": found.verdict()}
        print_json(known | told | {"hosts": host_rows(found), "events": events(found)[-_LAST_EVENTS:]})
        return 0
    reason = f"  {status['reason']}" if status["reason"] else ""
    click.echo(f"{click.style(found.run_id, bold=True)}  {coloured(status['state'])}{reason}")
    for what, words in _words(found, known):
        click.echo(f"{what:<10} {words}")
    rows = [[row["host"], row["state"], row["ranks"], row["message"]] for row in host_rows(found)]
    print_table(
        ["host", "state" if status["state"] is not State.LOST else "last seen", "ranks", "what"], rows
    )
    _print_events(found)
    return 0


def _words(run: RunDir, known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a run besides its state and its hosts, each with what it is about."""
    from orchestrator.notify.message import duration, reached_words

    yield "directory", str(run.path)
    if before := run.record().get("resumes"):
        yield "resumes", before
    if known["seconds"] is not None:
        yield "ran" if known["state"].is_final else "running", duration(known["seconds"])
    if reached := known["progress"]:
        since = "" if known["state"].is_final else f", {ago(reached['time'])} ago"
        pace = f", {reached['step_time']:.3g} s a step" if "step_time" in reached else ""
        yield "reached", f"{reached_words(reached)}{pace}{since}"
    if (found := known["diagnosis"]) is not None:
        yield "diagnosis", found["summary"]
        yield "more", f"orchestrate diagnose {run.run_id}"


def _print_events(run: RunDir) -> None:
    """Print the last events, in the words of `orchestrate top`."""
    from orchestrator.monitor.status import events
    from orchestrator.monitor.top.event_log import EventLog

    log = EventLog()
    for event in events(run):
        log.add(event)
    for line in log.lines()[-_LAST_EVENTS:]:
        click.echo(f"{time.strftime('%H:%M:%S', time.localtime(line.time))}  {line.text}")


@click.command("cancel")
@click.argument("run", shell_complete=complete_run)
@_ROOT
@_JSON
def cancel_command(run: str, run_root: Path, as_json: bool) -> int:
    """End a run: SIGTERM to every rank, SIGKILL after the job's grace time. Waits until it has ended."""
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.monitor.cancel import cancel

    if (code := forward(run, run_root)) is not None:
        return code
    sweep = registry.find_sweep(run, run_root)
    if sweep is not None:
        from orchestrator.cli.sweep import cancel as cancel_points

        return cancel_points(sweep, as_json=as_json)
    found = registry.find(run, run_root)
    state, said = cancel(found)
    if as_json:
        print_json({"run_id": found.run_id, "state": state, "reason": said})
    else:
        click.echo(f"{found.run_id}  {coloured(state)}  {said}")
    return 0 if state.is_final and state is not State.LOST else 1


@click.command("supervise")
@click.argument("run_dir", type=click.Path(path_type=Path))
def supervise_command(run_dir: Path) -> int:
    """Drive the run, or the sweep, in RUN_DIR in the foreground, as submit does in the background."""
    if (run_dir / "sweep.json").exists():
        from orchestrator.sweep.drive import drive
        from orchestrator.sweep.sweepdir import SweepDir

        return drive(SweepDir(run_dir))
    from orchestrator.supervisor.run import supervise

    return supervise(run_dir)
