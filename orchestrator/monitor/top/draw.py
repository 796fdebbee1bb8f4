"""The screen's texts: pure functions from values to rows of (text, style), whatever shows them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from orchestrator.monitor.top.curve import draw_curve
from orchestrator.monitor.top.words import NAMES, clock, duration, one_line, short_bytes, short_number
from orchestrator.states import State
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from orchestrator.monitor.top.host_log import LogLine
    from orchestrator.monitor.top.snapshot import Curve, EventLine, RankView, Snapshot

Row = list[tuple[str, str]]
"""One line: pieces of text, each with a style as Rich names them."""

STATES = {
    State.SUCCEEDED: "bold green",
    State.RUNNING: "bold cyan",
    State.STARTING: "bold cyan",
    State.FAILED: "bold red",
    State.LOST: "bold red",
}
_SHOWN = (
    "loss",
    "tokens_per_second",
    "samples_per_second",
    "step_time",
    "learning_rate",
    "grad_norm",
    "eval_loss",
)
_CURVES = ("loss", "tokens_per_second", "samples_per_second", "step_time", "grad_norm", "learning_rate")
_SEVERITIES = (("", " "), ("bold", "•"), ("bold red", "✗"))
_ZOOMED = 100  # points
_INDENT = 11  # characters of time and sign before an event
_WHY = 24  # characters of why a rank looks slow, where figures take the rest


def header(snapshot: Snapshot, now: float, width: int, stale: float = 0.0) -> list[Row]:
    """Return the lines above everything: three, or four where the reason needs two.

    Args:
        snapshot: the run.
        now: epoch seconds.
        width: characters of a line.
        stale: seconds for which the files have not answered.
    """
    text, style = _why(snapshot, stale)
    told = textwrap.wrap(text, max(20, width - 2), max_lines=2, placeholder=" …") or [""]
    return [_who(snapshot, now), _numbers(snapshot), *([(f" {line}", style)] for line in told)]


def _who(snapshot: Snapshot, now: float) -> Row:
    row: Row = [
        (f" {snapshot.run_id}  ", "bold"),
        (str(snapshot.state), STATES.get(snapshot.state, "bold yellow")),
    ]
    if snapshot.attempt:
        row.append((f"  attempt {snapshot.attempt}", ""))
    if snapshot.hosts:
        row.append((f"  {counted(len(snapshot.hosts), 'host')}, {counted(snapshot.world_size, 'rank')}", ""))
    if snapshot.began is not None:
        row.append((f"  {duration((snapshot.ended or now) - snapshot.began)}", ""))
    return row


def _numbers(snapshot: Snapshot) -> Row:
    row: Row = [(f" step {snapshot.step:,}", "bold")] if snapshot.step is not None else []
    for name in _SHOWN:
        if name in snapshot.values:
            value = short_number(snapshot.values[name])
            style = "bold red" if value in ("NaN", "inf", "-inf") else "bold"
            row += [(f"  {NAMES[name].removesuffix(' s')} ", ""), (value, style)]
            row += [(" s", "")] if name == "step_time" else []
    if not row:
        row = [(" no step has been told yet", "dim")]
    if snapshot.checkpoint:
        row.append((f"  checkpoint {snapshot.checkpoint}", ""))
    return row


def _why(snapshot: Snapshot, stale: float) -> tuple[str, str]:
    if stale:
        return f"the run directory has not answered for {duration(stale)}", "bold red"
    if snapshot.problems:
        return f"cannot read {'; '.join(snapshot.problems)}", "bold red"
    told = one_line(diagnosed(snapshot) or snapshot.reason, 1000)
    return told, "red" if snapshot.state in (State.FAILED, State.LOST) else ""


def diagnosed(snapshot: Snapshot) -> str:
    """Return the diagnosis in one sentence with its category, or "" where there is none."""
    found = snapshot.diagnosis or {}
    summary = found.get("summary")
    return f"[{found['category']}] {summary}" if summary and found.get("category") else str(summary or "")


def curve_names(curves: Mapping[str, Curve]) -> list[str]:
    """Return the names of the curves there are, the most wanted first."""
    known = [name for name in _CURVES if name in curves]
    return known + sorted(name for name in curves if name not in known)


def curve_rows(
    curves: Mapping[str, Curve], first: int, width: int, height: int, *, zoomed: bool
) -> list[Row]:
    """Return as many curves as fit, from the `first` name on, each with a title.

    Args:
        curves: by name.
        first: index into `curve_names` of the uppermost; it goes round.
        width: characters of a line.
        height: lines in all.
        zoomed: the last points only.
    """
    names = curve_names(curves)
    if not names:
        said = "no metrics yet: a curve appears with the first line that tells a step and its loss"
        return [[(line, "dim")] for line in textwrap.wrap(said, max(20, width))]
    count = max(1, min(len(names), height // 6))
    rows: list[Row] = []
    for place in range(count):
        curve = curves[names[(first + place) % len(names)]]
        rows += _curve(curve, width, height // count + (place < height % count), zoomed=zoomed)
    return rows


def _curve(curve: Curve, width: int, height: int, *, zoomed: bool) -> list[Row]:
    points = curve.points[-_ZOOMED:] if zoomed else curve.points
    last = "" if curve.last is None else short_number(curve.last)
    style = "bold red" if last in ("NaN", "inf", "-inf") else "bold"
    title: Row = [(f"{NAMES.get(curve.name, curve.name)} ", ""), (last, style)]
    return [title, *([(line, "cyan")] for line in draw_curve(points, width, height - 1))]


_COLUMNS: tuple[tuple[str, int, Callable[[RankView], str]], ...] = (
    ("step", 7, lambda one: _cell(one.step, "{:.0f}")),
    ("step s", 7, lambda one: _cell(one.step_time, "{:.3g}")),
    ("GPU %", 6, lambda one: _cell(one.utilization, "{:.0%}").rstrip("%")),
    ("MHz", 5, lambda one: _cell(one.clock, "{:.0f}")),
    ("°C", 4, lambda one: _cell(one.temperature, "{:.0f}")),
    ("GPU mem", 9, lambda one: "" if one.memory is None else short_bytes(one.memory)),
    ("CPU", 5, lambda one: _cell(one.cpu, "{:.1f}")),
)


def rank_rows(ranks: Sequence[RankView], width: int) -> list[Row]:
    """Return the table of the slowest ranks, its head first; a column without a value is left out.

    Args:
        ranks: the slowest first.
        width: characters of a row, if possible.
    """
    if not ranks:
        return [[("no rank to show", "dim")]]
    shown = [column for column in _COLUMNS if any(column[2](one) for one in ranks)]
    name = max(4, *(len(one.host) for one in ranks))
    taken = 9 + name + sum(columns + 2 for _, columns, _ in shown)
    why = min(max(_WHY, width - taken), max(len(one.why) for one in ranks))
    titles = [f"{'why':<{why}}"] if why else []
    titles += [f"{title:>{width}}" for title, width, _ in shown]
    rows: list[Row] = [[("  ".join([f"{'rank':>5}", f"{'host':<{name}}", *titles]), "bold")]]
    for one in ranks:
        cells = [f"{cell(one):>{width}}" for _, width, cell in shown]
        told = [(f"{one_line(one.why, why):<{why}}  ", "yellow")] if why else []
        rows.append([(f"{one.rank:>5}  {one.host:<{name}}  ", ""), *told, ("  ".join(cells), "")])
    return rows


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def event_rows(events: Sequence[EventLine], width: int) -> list[Row]:
    """Return the event stream, oldest first; what is worth a look has a sign and is not cut.

    Args:
        events: the lines.
        width: characters of a row.
    """
    rows: list[Row] = []
    for event in events:
        style, sign = _SEVERITIES[event.severity]
        first, *rest = [event.text]
        if event.severity:
            first, *rest = textwrap.wrap(event.text, max(30, width - _INDENT), max_lines=4) or [""]
        rows.append([(f"{clock(event.time)} ", "dim"), (f"{sign} {first}", style)])
        rows += [[(" " * _INDENT + line, style)] for line in rest]
    return rows or [[("nothing has happened yet", "dim")]]


def log_rows(lines: Iterable[LogLine], host: str) -> list[Row]:
    """Return a host's log lines with time and source."""
    rows: list[Row] = []
    for line in lines:
        when = "        " if line.time is None else clock(line.time)
        style = "red" if line.source.endswith(".err") else ""
        rows.append([(f"{when} ", "dim"), (f"{line.source:<5} ", "cyan"), (line.text, style)])
    return rows or [[(f"{host or 'no host'} has written nothing yet", "dim")]]
