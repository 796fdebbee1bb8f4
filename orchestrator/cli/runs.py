"""`orchestrate list`, `status`, `cancel` and `supervise`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, coloured, print_json, print_table
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir


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


@click.command("list")
@_ROOT
@_JSON
@click.option("--limit", "-n", default=20, show_default=True, help="How many of the latest runs; 0 for all.")
@click.option("--all-points", is_flag=True, help="List the runs of each sweep below it.")
def list_command(run_root: Path, as_json: bool, limit: int, all_points: bool) -> int:
    """List runs, the latest last."""
    from orchestrator import registry
    from orchestrator.cli.login import remote_entries
    from orchestrator.monitor.status import statuses

    latest = slice(-limit if limit else None, None)
    found = registry.all_runs(run_root)[latest]
    here = [_entry(run, status) for run, status in zip(found, statuses(found), strict=True)]
    here += _sweeps(registry.all_sweeps(run_root)[latest], all_points=all_points)
    elsewhere = remote_entries(limit)
    runs = sorted([*here, *elsewhere], key=lambda run: float(run["created"]))[latest]
    if as_json:
        print_json(runs)
        return 0
    if not runs:
        click.echo("no runs yet; start one with `orchestrate submit JOB.yaml`")
        return 0
    rows = [row for run in runs for row in _list_rows(run)]
    print_table(["run", "state", "submitted", "reason"], rows)
    return 0


def _list_rows(run: dict[str, Any]) -> list[list[str]]:
    submitted = ago(run["created"]) + " ago"
    rows = [[run["run_id"], str(run["state"]), submitted, run["reason"].split("\n")[0][:80]]]
    for point in run.get("points", ()):
        what = f"{point['label']}  {point['reason']}".split("\n")[0]
        rows.append([f"  {point['run_id']}", str(point["state"]), "", what[:80]])
    return rows


def _sweeps(sweeps: list[SweepDir], *, all_points: bool) -> list[dict[str, Any]]:
    if not sweeps:
        return []
    from orchestrator.cli.sweep import sweep_entry
    from orchestrator.monitor.sweep import point_rows

    found = [(sweep, point_rows(sweep)) for sweep in sweeps]
    more = [{"points": rows} if all_points else {} for _, rows in found]
    return [sweep_entry(*each) | points for each, points in zip(found, more, strict=True)]


def _created(run: RunDir) -> float:
    return float(run.record().get("created", time.time()))


def _entry(run: RunDir, status: dict[str, Any]) -> dict[str, Any]:
    return {"run_id": run.run_id, "run_dir": str(run.path), "created": _created(run), **status}


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
    from orchestrator.monitor.status import current_status, host_rows

    if (code := forward(run, run_root)) is not None:
        return code
    sweep = registry.find_sweep(run, run_root)
    if sweep is not None:
        from orchestrator.cli.sweep import show_status

        return show_status(sweep, as_json=as_json)
    found = registry.find(run, run_root)
    status = current_status(found)
    if as_json:
        document = _entry(found, status) | {"verdict": found.verdict(), "hosts": host_rows(found)}
        print_json(document)
        return 0
    click.echo(f"{click.style(found.run_id, bold=True)}  {coloured(status['state'])}  {status['reason']}")
    click.echo(f"directory  {found.path}")
    if before := found.record().get("resumes"):
        click.echo(f"resumes    {before}")
    rows = [[row["host"], row["state"], row["ranks"], row["message"]] for row in host_rows(found)]
    print_table(["host", "state", "ranks", "what"], rows)
    return 0


@click.command("cancel")
@click.argument("run", shell_complete=complete_run)
@_ROOT
def cancel_command(run: str, run_root: Path) -> int:
    """End a run: SIGTERM to every rank, SIGKILL after the job's grace time. Waits until it has ended."""
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.monitor.cancel import cancel

    if (code := forward(run, run_root)) is not None:
        return code
    sweep = registry.find_sweep(run, run_root)
    if sweep is not None:
        from orchestrator.cli.sweep import cancel as cancel_points

        return cancel_points(sweep)
    found = registry.find(run, run_root)
    state, said = cancel(found)
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
