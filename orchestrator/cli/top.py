"""`orchestrate top`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.runs import complete_run

if TYPE_CHECKING:
    from orchestrator.login.records import RemoteRun
    from orchestrator.rundir import RunDir


@click.command("top")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--web", is_flag=True, help="Show it in a browser: print a URL of this machine, with a token.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port for --web; a free one when not given."
)
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def top_command(run: str, web: bool, port: int, run_root: Path) -> int:
    """Watch a run on one screen: its hosts, loss, speed, slowest ranks, events and logs.

    RUN is a run id, also that of a sweep's point (SWEEP.3), a unique beginning of one, a run directory, or
    `last`. A run that has ended can be looked at as well. `?` shows the keys.
    """
    from orchestrator.login import records

    if port and not web:
        raise click.UsageError("--port goes with --web")
    _need("textual")
    far = records.find(run, run_root)
    if far is not None:
        return _serve(far.run_id, run, run_root, port) if web else _show_there(far)
    found = _run_here(run, run_root)
    return _serve(found.run_id, str(found.path), run_root, port) if web else _show(found)


def _run_here(run: str, run_root: Path) -> RunDir:
    from orchestrator import registry
    from orchestrator.errors import Problem, RunNotFoundError

    sweep = registry.find_sweep(run, run_root)
    if sweep is not None:
        fix = f"name a point, such as {sweep.sweep_id}.1; `orchestrate status {sweep.sweep_id}` lists them"
        raise RunNotFoundError(Problem("is a sweep, and top shows one run", "RUN", sweep.sweep_id, fix))
    return registry.find(run, run_root)


def _show_there(run: RemoteRun) -> int:
    from orchestrator.login.commands import settle
    from orchestrator.login.screen import show_screen

    _need_terminal(run.run_id)
    if not run.run_dir:
        settle(run)
    return show_screen(run)


def _serve(run_id: str, run: str, run_root: Path, port: int) -> int:
    _need("textual_serve")
    from orchestrator.monitor.top.web import serve

    serve(run_id, ["top", run, "--run-root", str(run_root.absolute())], port)
    return 0


def _need(package: str) -> None:
    """Make sure that a package is there.

    Raises:
        OrchestratorError: it is not.
    """
    from orchestrator.errors import OrchestratorError, Problem

    if importlib.util.find_spec(package) is None:
        fix = "pip install 'zeropp-orchestrator[monitor]'"
        raise OrchestratorError(
            Problem(f"{package.replace('_', '-')} is not installed beside orchestrate", "top", fix=fix)
        )


def _need_terminal(run_id: str) -> None:
    """Make sure that there is a screen to draw on: a terminal, or a browser's (textual-serve's driver).

    Raises:
        CommandError: there is none.
    """
    from orchestrator.errors import CommandError, Problem

    if "TEXTUAL_DRIVER" not in os.environ and not (sys.stdin.isatty() and sys.stdout.isatty()):
        fix = f"without one, `orchestrate status {run_id}` or `orchestrate logs -f {run_id}`"
        raise CommandError(Problem("needs a terminal", "top", fix=fix))


def _show(run: RunDir) -> int:
    from orchestrator.monitor.top.actions import Actions
    from orchestrator.monitor.top.app import TopApp
    from orchestrator.monitor.top.reading import Reader

    _need_terminal(run.run_id)
    app = TopApp(Reader(run), Actions(run))
    app.run()
    return app.return_code or 0
