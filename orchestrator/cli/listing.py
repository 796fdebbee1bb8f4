"""`orchestrate list`."""

from __future__ import annotations

import fnmatch
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, fitted, print_json, print_table, shortened
from orchestrator.notify.message import duration, number_words
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir

_GROUPS = {"active": [s for s in State if not s.is_final], "ended": [s for s in State if s.is_final]}
_HEAD = ("run", "state", "hosts", "step", "loss", "ran", "submitted", "reason")
_REASON = 80  # characters


@dataclass(frozen=True)
class _Filter:
    """Which runs are wanted: those in one of `states` (none: all), of that name, submitted since then."""

    states: frozenset[State]
    name: str | None
    since: float

    def may_be(self, run_id: str, name: str, created: float) -> bool:
        """Tell whether a run is wanted as far as that can be told without its state."""
        if created < self.since:
            return False
        return self.name is None or any(fnmatch.fnmatchcase(word, self.name) for word in (run_id, name))


@click.command("list")
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many of the latest runs; 0 for all.",
)
@click.option("--all-points", is_flag=True, help="List the runs of each sweep below it.")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE",
    help="Only runs in this state (running, failed, ...), active or ended; may be given again.",
)
@click.option(
    "--name", help="Only runs whose id or job name matches: lr-*, *-abcd; a plain word may be anywhere."
)
@click.option("--since", help="Only runs submitted since: 2d, 3h (ago), 14:05, 2026-11-21.")
def list_command(
    run_root: Path,
    as_json: bool,
    limit: int,
    all_points: bool,
    *,
    states: tuple[str, ...],
    name: str | None,
    since: str | None,
) -> int:
    """List runs, the latest last."""
    wanted = _Filter(_states(states), _pattern(name), _moment(since))
    runs = _found(run_root, wanted, limit, all_points=all_points)
    if as_json:
        print_json(runs)
        return 0
    if not runs:
        filtered = wanted != _Filter(frozenset(), None, 0.0)
        none = "no such runs; `orchestrate list` shows all"
        click.echo(none if filtered else "no runs yet; start one with `orchestrate submit JOB.yaml`")
        return 0
    rows = [row for run in runs for row in _rows(run)]
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        print_table(*fitted(_HEAD, rows, width, ("submitted", "hosts", "ran")))
    else:
        print_table(_HEAD, [[*row[:-1], shortened(row[-1], _REASON)] for row in rows])
    return 0


def _states(words: tuple[str, ...]) -> frozenset[State]:
    found: set[State] = set()
    for word in (each.strip() for text in words for each in text.split(",")):
        if word.lower() in _GROUPS:
            found.update(_GROUPS[word.lower()])
        elif word.upper() in State.__members__:
            found.add(State[word.upper()])
        else:
            known = ", ".join([*_GROUPS, *(state.lower() for state in State)])
            raise click.BadParameter(f"{word!r} is no state; there are {known}", param_hint="--state")
    return frozenset(found)


def _pattern(name: str | None) -> str | None:
    return name if name is None or set(name) & set("*?[") else f"*{name}*"


def _moment(text: str | None) -> float:
    if text is None:
        return 0.0
    from orchestrator.monitor.logs.moments import parse_moment

    try:
        return parse_moment(text, time.time())
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint="--since") from error


def _found(run_root: Path, wanted: _Filter, limit: int, *, all_points: bool) -> list[dict[str, Any]]:
    """Return the wanted runs and sweeps, also those on other machines, the latest last.

    Of all of them only the state is asked; only those that are shown cost a look into their files.
    """
    from orchestrator import registry
    from orchestrator.cli.login import remote_entries
    from orchestrator.monitor.overview import overview

    few = limit if not wanted.states else 0
    here = _by_state(_latest(registry.all_runs(run_root), wanted, few))
    entries = [*here, *_sweeps(registry.all_sweeps(run_root), wanted, few, all_points=all_points)]
    entries += [e for e in remote_entries(few) if wanted.may_be(e["run_id"], e["run_id"], e["created"])]
    chosen = [entry for entry in entries if not wanted.states or entry["state"] in wanted.states]
    chosen = sorted(chosen, key=lambda entry: float(entry["created"]))[-limit if limit else None :]
    return [overview(entry["run"], entry["status"]) if "run" in entry else entry for entry in chosen]


def _latest(runs: list[RunDir], wanted: _Filter, limit: int) -> list[RunDir]:
    if wanted.name is None and not wanted.since:
        return runs[-limit if limit else None :]
    found = [run for run in runs if _may_be(run, wanted)]
    return found[-limit if limit else None :]


def _may_be(run: RunDir, wanted: _Filter) -> bool:
    record = run.record()
    return wanted.may_be(run.run_id, str(record.get("name", "")), _created(record))


def _created(record: dict[str, Any]) -> float:
    return float(record.get("created", time.time()))


def _by_state(runs: list[RunDir]) -> list[dict[str, Any]]:
    from orchestrator.monitor.status import statuses

    return [
        {"run": run, "status": status, "state": status["state"], "created": _created(run.record())}
        for run, status in zip(runs, statuses(runs), strict=True)
    ]


def _sweeps(sweeps: list[SweepDir], wanted: _Filter, limit: int, *, all_points: bool) -> list[dict[str, Any]]:
    found = [sweep for sweep in sweeps if wanted.may_be(sweep.sweep_id, sweep.sweep_id, _submitted(sweep))]
    if not found:
        return []
    from orchestrator.cli.sweep import sweep_entry
    from orchestrator.monitor.sweep import point_rows

    entries = []
    for sweep in found[-limit if limit else None :]:
        rows = point_rows(sweep)
        entries.append(sweep_entry(sweep, rows) | ({"points": rows} if all_points else {}))
    return entries


def _submitted(sweep: SweepDir) -> float:
    return float(sweep.read().get("created", 0.0))


def _rows(run: dict[str, Any]) -> list[list[str]]:
    reached = run.get("progress") or {}
    reason = (run.get("diagnosis") or {}).get("summary") or run["reason"]
    seconds = run.get("seconds")
    rows = [[
        run["run_id"],
        str(run["state"]),
        str(run.get("nodes") or ""),
        str(reached.get("step", "")),
        number_words(reached.get("loss")),
        "" if seconds is None else duration(float(seconds)),
        ago(run["created"]) + " ago",
        reason.split("\n")[0],
    ]]  # fmt: skip
    for point in run.get("points", ()):
        what = f"{point['label']}  {point['reason']}".split("\n")[0]
        rows.append([f"  {point['run_id']}", str(point["state"]), "", "", "", "", "", what])
    return rows
