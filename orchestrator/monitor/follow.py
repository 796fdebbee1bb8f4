"""Follow one run on the terminal: its states, what rank 0 prints, and the verdict."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import coloured, text_width
from orchestrator.monitor.logs import Selection, View, Viewer
from orchestrator.monitor.logs.reader import last_lines
from orchestrator.monitor.logs.text import Texts
from orchestrator.monitor.status import current_status
from orchestrator.states import State

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.rundir import RunDir

_POLL = 0.1  # seconds
_TAIL_LINES = 20
_DIAGNOSIS_SECONDS = 3.0
_OWN = "[orchestrate "  # an agent's own lines in a host's log: the verdict has told what they tell


def follow_run(run: RunDir) -> int:
    """Show a run until it ends; return 0 if it succeeded, 1 if not, 130 after Ctrl-C."""
    try:
        status = _watch(run)
    except KeyboardInterrupt:
        click.echo(f"\n{run.run_id} goes on without this terminal")
        click.echo(f"  follow it again   orchestrate logs -f {run.run_id}")
        click.echo(f"  end it            orchestrate cancel {run.run_id}")
        return 130
    _show_end(run, status)
    return 0 if status["state"] is State.SUCCEEDED else 1


def _watch(run: RunDir) -> dict[str, Any]:
    shown: tuple[State, str] | None = None
    rank_0 = _rank_0(run)
    while True:
        status = current_status(run)
        if (status["state"], status["reason"]) != shown and not status["state"].is_final:
            shown = (status["state"], status["reason"])
            click.echo(f"{coloured(status['state'])}  {status['reason']}".rstrip())
        rank_0.look(last=status["state"].is_final)
        if status["state"].is_final:
            return status
        time.sleep(_POLL)


def _rank_0(run: RunDir) -> Viewer:
    """Return what prints the first rank's output, from the first attempt on."""
    forced = click.get_current_context().color if click.get_current_context(silent=True) else None
    colour = sys.stdout.isatty() if forced is None else forced
    selection = Selection(ranks=frozenset({0}), kinds=frozenset({"out"}))
    return Viewer(run, selection, View(bare=True, colour=colour), follow=True)


def _show_end(run: RunDir, status: dict[str, Any]) -> None:
    verdict = run.verdict() or {}
    for cause in verdict.get("candidates", [])[:4]:
        _show_log(run.attempts()[-1].logs / cause["log"])
    click.echo()
    _show_diagnosis(run, status)
    click.echo(f"verdict    {run.verdict_file}")
    click.echo(f"logs       {run.attempts()[-1].logs}")
    click.echo(f"everything {run.path}")


def _show_diagnosis(run: RunDir, status: dict[str, Any]) -> None:
    """Say in a sentence how it ended; after a failure, on which lines that rests, and what to try."""
    from orchestrator.diagnose.make import read_diagnosis  # noqa: PLC0415 - only the end of a run needs it
    from orchestrator.diagnose.show import end_of_run  # noqa: PLC0415 - as above

    told = read_diagnosis(run)
    deadline = time.monotonic() + _DIAGNOSIS_SECONDS
    while told is None and run.verdict() is not None and time.monotonic() < deadline:
        time.sleep(_POLL)  # ours failed; the supervisor makes one too, with the files that it began with
        told = read_diagnosis(run) if run.diagnosis_file.exists() else None
    for line in end_of_run(run, status, told, width=text_width()):
        click.echo(line)


def _show_log(log: Path) -> None:
    said = (text for line in last_lines(log) for text in Texts().of(line))
    wanted = (text for text in said if text.strip() and not text.startswith(_OWN))
    lines = list(itertools.islice(wanted, _TAIL_LINES))
    if lines:
        click.echo(click.style(f"--- the end of {log}", dim=True))
        for line in reversed(lines):
            click.echo(f"  {line}")
