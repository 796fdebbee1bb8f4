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


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the run ids that begin so, for the shell."""
    from orchestrator import registry

    return [run.run_id for run in registry.all_runs(Path("runs")) if run.run_id.startswith(incomplete)]


_RUN = click.argument("run", default="last", shell_complete=complete_run)
_ROOT = click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.command("list")
@_ROOT
@_JSON
@click.option("--limit", "-n", default=20, show_default=True, help="How many of the latest runs; 0 for all.")
def list_command(run_root: Path, as_json: bool, limit: int) -> int:
    """List runs, the latest last."""
    from orchestrator import registry
    from orchestrator.monitor.status import current_status

    runs = [(run, current_status(run)) for run in registry.all_runs(run_root)[-limit if limit else None :]]
    if as_json:
        print_json([_entry(run, status) for run, status in runs])
        return 0
    if not runs:
        click.echo("no runs yet; start one with `orchestrate submit JOB.yaml`")
        return 0
    rows = [
        [run.run_id, str(status["state"]), ago(_created(run)) + " ago", status["reason"].split("\n")[0][:80]]
        for run, status in runs
    ]
    print_table(["run", "state", "submitted", "reason"], rows)
    return 0


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

    RUN is a run id, a unique beginning of one, a run directory, or `last`.
    """
    from orchestrator import registry
    from orchestrator.monitor.status import current_status, host_rows

    found = registry.find(run, run_root)
    status = current_status(found)
    if as_json:
        document = _entry(found, status) | {"verdict": found.verdict(), "hosts": host_rows(found)}
        print_json(document)
        return 0
    click.echo(f"{click.style(found.run_id, bold=True)}  {coloured(status['state'])}  {status['reason']}")
    click.echo(f"directory  {found.path}")
    rows = [[row["host"], row["state"], row["ranks"], row["message"]] for row in host_rows(found)]
    print_table(["host", "state", "ranks", "what"], rows)
    return 0


@click.command("cancel")
@click.argument("run", shell_complete=complete_run)
@_ROOT
def cancel_command(run: str, run_root: Path) -> int:
    """End a run: SIGTERM to every rank, SIGKILL after the job's grace time. Waits until it has ended."""
    from orchestrator import registry
    from orchestrator.monitor.cancel import cancel

    found = registry.find(run, run_root)
    state, said = cancel(found)
    click.echo(f"{found.run_id}  {coloured(state)}  {said}")
    return 0 if state.is_final and state is not State.LOST else 1


@click.command("supervise")
@click.argument("run_dir", type=click.Path(path_type=Path))
def supervise_command(run_dir: Path) -> int:
    """Drive the run in RUN_DIR in the foreground, as submit does in the background."""
    from orchestrator.supervisor.run import supervise

    return supervise(run_dir)
