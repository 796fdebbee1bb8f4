"""Tables and colours: for a person at a terminal, plain for a pipe."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

_GAP = 3  # columns between two columns of a rich table
_LEAST = 30  # of a table's last column, before others are left out for it
_VERY_LEAST = 8

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


def text_width() -> int:
    """Return the columns that sentences are wrapped to: a pipe's reader gets each of them in one line."""
    return min(120, shutil.get_terminal_size((100, 24)).columns) if sys.stdout.isatty() else sys.maxsize


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


def fitted(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int, may_go: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Return a table of which every row fits on one line of a screen.

    Args:
        head: the columns' names.
        rows: as many cells each.
        width: columns of the screen.
        may_go: columns to leave out, in this order, while too little is left for the last one, which is cut.
    """
    gone: set[str] = set()
    for name in (*may_go, None):
        kept = [i for i, title in enumerate(head) if title not in gone]
        room = width - sum(max(len(row[i]) for row in (head, *rows)) + _GAP for i in kept[:-1]) - _GAP
        if room >= _LEAST or name is None:
            break
        gone.add(name)
    cut = [[*(row[i] for i in kept[:-1]), shortened(row[kept[-1]], max(room, _VERY_LEAST))] for row in rows]
    return [head[i] for i in kept], cut


def shortened(text: str, room: int) -> str:
    """Return a text that takes no more than some characters, with a mark where it was cut."""
    return text if len(text) <= room else f"{text[: room - 1]}…"


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
