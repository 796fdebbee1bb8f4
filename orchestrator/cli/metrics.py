"""`orchestrate metrics`: what a run has told of itself, as a table or for other programs."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ranksets import rank_set
from orchestrator.cli.runs import complete_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.monitor.metrics.select import Selection
    from orchestrator.rundir import RunDir

_KINDS = ("step", "rank", "gpu", "host", "all")
_ROWS = 20
_LOOPBACK = "127.0.0.1"


@click.command("metrics")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(_KINDS),
    help="step: what ranks told of steps (the default); rank, gpu, host: what was measured; all.",
)
@click.option("--host", "hosts", multiple=True, help="Only this host; may be given again.")
@click.option("--rank", "ranks", help="Only these ranks, such as 0,8-15.")
@click.option("--attempt", type=int, help="Only this attempt.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last so many; 0 for all.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends; Ctrl-C leaves it alone.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with all columns.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line, as in metrics.jsonl.")
@click.option(
    "--prometheus",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve the newest values at http://127.0.0.1:PORT/metrics; 0 takes a free port.",
)
@click.option("--active", is_flag=True, help="With --prometheus: all runs that go on, not only RUN.")
@click.option("--bind", metavar="ADDRESS", help="With --prometheus: listen here and not on loopback.")
@click.option(
    "--tensorboard",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write event files for TensorBoard below DIR/RUN.",
)
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def metrics_command(run: str, run_root: Path, **given: Any) -> int:
    """Show a RUN's metrics: step, loss, speed; GPUs, memory, network.

    The table has the last 20 steps, or the newest measurement of every host, rank and GPU. All of it is in
    metrics.jsonl in the run directory: pandas.read_json("metrics.jsonl", lines=True).
    """
    from orchestrator import registry
    from orchestrator.cli.login import forward

    _see_that_they_fit(given)
    selection = _selection(given)
    if given["active"]:
        return _serve(lambda: _active(run_root), given["bind"] or _LOOPBACK, given["prometheus"])
    if given["folder"] is not None:
        _see_that_it_is_here(run, run_root)
    if (code := forward(run, run_root)) is not None:
        return code
    found = registry.find(run, run_root)
    if given["prometheus"] is not None:
        return _serve(lambda: [found], given["bind"] or _LOOPBACK, given["prometheus"])
    _see_that_it_has(found, selection)
    if given["folder"] is not None:
        return _export(found, selection, given["folder"], follow=given["follow"])
    return _print(found, selection, given)


def _see_that_they_fit(given: dict[str, Any]) -> None:
    asked = {
        "--csv": given["as_csv"],
        "--json": given["as_json"],
        "--prometheus": given["prometheus"] is not None,
        "--tensorboard": given["folder"] is not None,
    }
    chosen = [option for option, is_given in asked.items() if is_given]
    if len(chosen) > 1:
        raise click.UsageError(f"{chosen[0]} and {chosen[1]} are two ways to have it; choose one")
    for option, value in (("--bind", given["bind"]), ("--active", given["active"])):
        if value and given["prometheus"] is None:
            raise click.UsageError(f"{option} goes with --prometheus")


def _selection(given: dict[str, Any]) -> Selection:
    from orchestrator.monitor.metrics.select import KINDS, Selection

    kinds = given["kinds"] or ("step",)
    return Selection(
        kinds=KINDS if "all" in kinds else tuple(kinds),
        hosts=frozenset(given["hosts"]),
        ranks=rank_set(given["ranks"]),
        attempt=given["attempt"],
    )


def _see_that_it_has(run: RunDir, selection: Selection) -> None:
    """Refuse hosts, ranks and attempts that the run does not have, as `logs` does.

    Without it they would look as if nothing had been measured there.
    """
    from orchestrator.monitor.logs.select import chosen_attempts, refuse_unknown

    if selection.attempt is not None:
        chosen_attempts(run, selection.attempt)
    every = {attempt.number: run.plan(attempt) for attempt in run.attempts()}
    plans = [plan for number, plan in every.items() if selection.attempt in {None, number}] or [run.plan()]
    refuse_unknown(plans, selection.hosts, selection.ranks, every)


def _see_that_it_is_here(run: str, run_root: Path) -> None:
    """Refuse to write files on a login host for somebody who looks for them here."""
    from orchestrator.errors import Problem, RunNotFoundError
    from orchestrator.login import records

    if (found := records.find(run, run_root)) is not None:
        fix = f"orchestrate fetch {found.run_id}; orchestrate metrics ./{found.run_id} --tensorboard DIR"
        raise RunNotFoundError(Problem(f"the run is on {found.host}", "--tensorboard", run, fix))


def _print(run: RunDir, selection: Selection, given: dict[str, Any]) -> int:
    from orchestrator.monitor.metrics import show
    from orchestrator.monitor.metrics.select import Selected

    selected, tail = Selected(run, selection), given["tail"]
    records = show.newest(selected.new(), tail, each=False) if tail else selected.new()
    if given["as_csv"]:
        names = show.csv_columns(run, selection)
        show.print_csv(names, records, head=True)
        return _follow(run, selected, given, lambda found: show.print_csv(names, found, head=False))
    if given["as_json"]:
        show.print_json_lines(records)
        return _follow(run, selected, given, show.print_json_lines)
    each = tail is None and "step" not in selection.kinds and not given["follow"]
    rows = show.newest(records, _ROWS if tail is None else tail, each=each)
    if not rows and not given["follow"]:
        click.echo(_nothing(run, selection), err=True)
        return 0
    return _print_table(run, selected, rows, given)


def _print_table(run: RunDir, selected: Any, rows: list[dict[str, Any]], given: dict[str, Any]) -> int:
    from orchestrator.monitor.metrics.show import Table

    tables = [Table(rows)] if rows else []

    def more(found: list[dict[str, Any]]) -> None:
        if not tables:
            tables.append(Table(found))
            tables[0].print_head()
        tables[0].print_rows(found)

    for table in tables:
        table.print_head()
        table.print_rows(rows)
    return _follow(run, selected, given, more)


def _nothing(run: RunDir, selection: Selection) -> str:
    if not run.metrics_file.exists():
        over = run.status()["state"].is_final
        later = ": it ended before any came" if over else " yet; they come when its ranks have begun"
        return f"{run.run_id} has no metrics{later}"
    kinds = ", ".join(selection.kinds)
    return f"no such metrics of {run.run_id} ({kinds}); --kind all shows every kind"


def _follow(
    run: RunDir, selected: Any, given: dict[str, Any], show: Callable[[list[dict[str, Any]]], None]
) -> int:
    if not given["follow"]:
        return 0
    from orchestrator.monitor.metrics.show import growing

    try:
        for found in growing(selected, _is_over(run)):
            show(found)
    except KeyboardInterrupt:
        return 130
    return 0


def _is_over(run: RunDir) -> Callable[[], bool]:
    from orchestrator.monitor.status import current_status

    return lambda: current_status(run)["state"].is_final


def _active(run_root: Path) -> list[RunDir]:
    """Return the runs that go on, as their own files say; their supervisors are asked later."""
    from orchestrator import registry

    points = [run for sweep in registry.all_sweeps(run_root) for _, run in sweep.points()]
    return [run for run in (*registry.all_runs(run_root), *points) if not run.status()["state"].is_final]


def _serve(runs: Callable[[], list[RunDir]], address: str, port: int) -> int:
    from orchestrator.errors import CommandError, Problem
    from orchestrator.monitor.metrics.serve import MetricsServer

    try:
        server = MetricsServer(runs, (address, port))
    except OSError as error:
        what, fix = f"cannot listen there: {error.strerror}", "choose another port; 0 takes a free one"
        if error.errno != errno.EADDRINUSE and address != _LOOPBACK:
            fix = "give --bind an address of this machine, 0.0.0.0 for all of them, or leave it out"
        raise CommandError(Problem(what, "--prometheus", f"{address}:{port}", fix)) from error
    port = server.server_port
    click.echo(f"serving  http://{address}:{port}/metrics  until Ctrl-C")
    if address == _LOOPBACK and os.environ.get("SSH_CONNECTION"):
        click.echo(f"from elsewhere  ssh -L {port}:{_LOOPBACK}:{port} {socket.gethostname()}")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _export(run: RunDir, selection: Selection, folder: Path, *, follow: bool) -> int:
    from orchestrator.errors import CommandError, Problem
    from orchestrator.monitor.metrics.select import Selected
    from orchestrator.monitor.metrics.tensorboard import Export

    export, selected = Export(folder / run.run_id), Selected(run, selection)

    def write(found: list[dict[str, Any]]) -> None:
        export.add(found)
        export.flush()

    try:
        export.add(selected.new())
        code = _follow(run, selected, {"follow": follow}, write)
        export.close()
    except OSError as error:
        what, fix = f"cannot write there: {error.strerror}", "name another folder"
        raise CommandError(Problem(what, "--tensorboard", str(folder), fix)) from error
    click.echo(f"wrote      {export.count} values into {folder / run.run_id}")
    click.echo(f"look at    tensorboard --logdir {folder}")
    return code
