"""Tables and colours: for a person at a terminal, plain for a pipe."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOURS = {
    State.SUCCEEDED: "green",
    State.RUNNING: "cyan",
    State.STARTING: "cyan",
    State.STOPPING: "yellow",
    State.CANCELLED: "yellow",
    State.TIMEOUT: "yellow",
    State.FAILED: "red",
    State.LOST: "red",
}


def print_json(value: Any) -> None:
    """Print a value for scripts."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def coloured(state: State) -> str:
    """Return a state in its colour (click drops the colour in a pipe)."""
    return click.style(str(state), fg=_COLOURS.get(state))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a head: a rich table on a terminal, aligned columns in a pipe."""
    if sys.stdout.isatty():
        _print_rich(head, rows)
        return
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))  # type: ignore[call-overload]
    Console().print(table)


def ago(when: float) -> str:
    """Return how long ago a time (epoch seconds) was: 42 s, 3 min, 5 h, 2 d."""
    seconds = max(0.0, time.time() - when)
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
