"""Print records of metrics: a table for a person, CSV or JSON lines for a program."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import click

from orchestrator.monitor.metrics.columns import columns, shown, title, worth_showing
from orchestrator.monitor.metrics.select import Selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from orchestrator.monitor.metrics.select import Selection
    from orchestrator.rundir import RunDir

_POLL = 0.5  # seconds
_LEAST = 9  # columns of the screen for a value that is not known yet how long it gets


def growing(selected: Selected, is_over: Callable[[], bool]) -> Iterator[list[dict[str, Any]]]:
    """Yield the records that come, some at a time, until the run is over."""
    while True:
        over = is_over()  # before the look: what was written until then is seen
        found = list(selected.new())
        if found:
            yield found
        if over:
            return
        time.sleep(_POLL)


def print_json_lines(records: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object a line, as metrics.jsonl has them."""
    for record in records:
        click.echo(json.dumps(record, ensure_ascii=False))


def print_csv(names: Sequence[str], records: Iterable[dict[str, Any]], *, head: bool) -> None:
    """Print records as CSV (RFC 4180, lines end as the system's do); a value that is not known is empty.

    Where no record has told of a column yet, nothing is printed, not an empty head.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(names), extrasaction="ignore", lineterminator="\n")
    if head and names:
        writer.writeheader()
    writer.writerows(records)
    click.echo(buffer.getvalue(), nl=False)


def csv_columns(run: RunDir, selection: Selection) -> list[str]:
    """Return the columns of the records that are there: they are read twice, so that none has to be kept."""
    return columns(Selected(run, selection).new())


def newest(records: Iterable[dict[str, Any]], count: int, *, each: bool) -> list[dict[str, Any]]:
    """Return the last records.

    Args:
        records: in order.
        count: how many; 0 for all.
        each: the last one of every host, rank and GPU instead.
    """
    if not each:
        return list(deque(records, count or None))
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        place = record.get("gpu") if record.get("kind") == "gpu" else record.get("rank")
        found[record.get("kind"), record.get("host"), place] = record
    return list(found.values())


class Table:
    """Rows under a head whose columns are decided by the first of them."""

    def __init__(self, records: Sequence[dict[str, Any]]) -> None:
        self._names = worth_showing(columns(records), records)
        cells = [[title(name) for name in self._names], *map(self._cells, records)]
        self._widths = [max(_LEAST, *map(len, column)) for column in zip(*cells, strict=True)]

    def _cells(self, record: dict[str, Any]) -> list[str]:
        return [shown(name, record.get(name)) for name in self._names]

    def print_head(self) -> None:
        """Print the names of the columns."""
        click.echo(click.style(self._line([title(name) for name in self._names]), bold=True))

    def print_rows(self, records: Iterable[dict[str, Any]]) -> None:
        """Print a line for each record."""
        for record in records:
            click.echo(self._line(self._cells(record)))

    def _line(self, cells: Sequence[str]) -> str:
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
