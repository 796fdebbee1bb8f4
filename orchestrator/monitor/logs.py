"""The logs of a run's hosts and ranks, with the origin of each line."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.monitor.status import current_status
from orchestrator.monitor.tail import Tail

if TYPE_CHECKING:
    import re

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir

_POLL = 0.2  # seconds
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")


@dataclass(frozen=True)
class Selection:
    """Which lines are wanted.

    Attributes:
        hosts: names; none means all.
        ranks: None means all, and the hosts' own logs.
        pattern: found in every line wanted.
    """

    hosts: frozenset[str] = frozenset()
    ranks: frozenset[int] | None = None
    pattern: re.Pattern[str] | None = None


def print_logs(run: RunDir, selection: Selection, *, attempt: int | None, follow: bool) -> int:
    """Print a run's logs; with `follow` go on until it ends. Returns the exit code.

    Raises:
        OrchestratorError: no such attempt, host or rank.
    """
    shown = _attempt(run, attempt)
    streams = _streams(run.plan(shown), shown, selection)
    printer = _Printer(selection)
    try:
        while True:
            over = not follow or current_status(run)["state"].is_final
            latest = _attempt(run, attempt)
            if latest.number != shown.number:  # the run was started again: show the rest of both
                shown = latest
                streams += _streams(run.plan(shown), shown, selection)
            for prefix, tail in streams:
                printer.show(prefix, tail, last=over)
            if over:
                return 0
            time.sleep(_POLL)
    except KeyboardInterrupt:
        click.echo(f"\n{run.run_id} goes on; `orchestrate cancel {run.run_id}` ends it", err=True)
        return 130


def _attempt(run: RunDir, number: int | None) -> AttemptDir:
    attempts = run.attempts()
    if number is None and attempts:
        return attempts[-1]
    found = next((attempt for attempt in attempts if attempt.number == number), None)
    if found is None:
        numbers = ", ".join(str(attempt.number) for attempt in attempts) or "none"
        raise OrchestratorError(Problem("no such attempt", "--attempt", str(number), f"there are: {numbers}"))
    return found


def _streams(plan: LaunchPlan, attempt: AttemptDir, selection: Selection) -> list[tuple[str, Tail]]:
    unknown = selection.hosts - {host.name for host in plan.hosts}
    if unknown:
        names = ", ".join(host.name for host in plan.hosts[:8])
        raise OrchestratorError(
            Problem("no such host in this run", "--host", min(unknown), f"it has: {names}")
        )
    if selection.ranks and max(selection.ranks) >= plan.world_size:
        fix = f"ranks are 0 to {plan.world_size - 1}"
        raise OrchestratorError(Problem("no such rank in this run", "--rank", str(max(selection.ranks)), fix))
    streams = []
    for host in plan.hosts:
        if selection.hosts and host.name not in selection.hosts:
            continue
        if selection.ranks is None:
            streams.append((host.name, Tail(attempt.logs / f"{host.file_name}.log")))
        for rank in host.ranks:
            if selection.ranks is None or rank in selection.ranks:
                stem = f"{host.file_name}.rank{rank}"
                streams += [
                    (f"{host.name}:{rank}", Tail(attempt.logs / f"{stem}.{end}")) for end in ("out", "err")
                ]
    return streams


class _Printer:
    def __init__(self, selection: Selection) -> None:
        self._pattern = selection.pattern

    def show(self, prefix: str, tail: Tail, *, last: bool) -> None:
        colour = _COLOURS[sum(prefix.encode()) % len(_COLOURS)]
        head = click.style(prefix, fg=colour)
        for line in tail.lines(last=last):
            if self._pattern is None or self._pattern.search(line):
                click.echo(f"{head} {line}")
