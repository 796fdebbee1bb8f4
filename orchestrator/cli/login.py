"""`orchestrate login` and `fetch`, and what the other commands do for a run on a cluster elsewhere."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, print_json, print_table
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.cli.submitted import Options
    from orchestrator.job import LoadedJob
    from orchestrator.login.place import Place
    from orchestrator.login.records import RemoteRun
    from orchestrator.prepare import Prepared


_CLOSE_SECONDS = 30.0
_OPEN, _NONE = "connected", "not connected"


def submit_through_login(job: LoadedJob, overrides: tuple[str, ...], options: Options) -> int:
    """Submit a job on its login host; return the exit code."""
    from orchestrator.login.submit import Submission, SubmitFailedError, check

    parcel, prepared = check(job, os.environ)
    for warning in prepared.warnings if prepared else ():
        click.echo(click.style("warning: ", fg="yellow") + warning, err=True)
    if options.dry_run:
        size = sum(item.size for item in parcel.items)
        if options.as_json:
            login = job.spec.cluster.login
            host = None if login is None else login.host
            print_json({"dry_run": True, "login": host, "files": len(parcel.items), "bytes": size})
            return 0
        click.echo(f"would send {counted(len(parcel.items), 'file')}, {size / 1e6:.1f} MB, and submit there")
        click.echo("nothing was sent or started")
        return 0
    submission = Submission(job, overrides, parcel)
    try:
        said = submission.run(["--no-start"] if options.no_start else [])
    except SubmitFailedError as error:
        return error.code
    _print_submitted(submission.record, said, prepared, as_json=options.as_json)
    if not options.follow:
        return 0
    from orchestrator.login.commands import follow

    return follow(submission.record)


def _print_submitted(
    run: RemoteRun, said: dict[str, Any], prepared: Prepared | None, *, as_json: bool
) -> None:
    from orchestrator.cli.submitted import shape

    if as_json:
        print_json({**said, "login": run.host})
        return
    click.echo(f"{click.style(run.run_id, bold=True)}  {shape(prepared) if prepared else ''}".rstrip())
    if said.get("found"):
        click.echo("an earlier try had started it")
    click.echo(f"login      {run.host}")
    click.echo(f"directory  {run.run_dir}")
    if said.get("slurm_job_id"):
        click.echo(f"Slurm job  {said['slurm_job_id']}")
    if "command" in said:
        click.echo(f"start it with   {shlex.join(said['command'])}   on {run.host}")
        return
    if "run_dir" in said:  # else it is a sweep, whose points have logs
        click.echo(f"follow     orchestrate logs -f {run.run_id}")
    click.echo(f"status     orchestrate status {run.run_id}")


def forward(run: str, run_root: Path) -> int | None:
    """Run the current command where its run is; return the exit code, or None for a run of this machine."""
    from orchestrator.login import records

    found = records.find(run, run_root)
    if found is None:
        return None
    if not found.run_dir:
        _settle(found)
    return _run_there(found, list(_words(click.get_current_context(), found.run_dir)))


def _words(context: click.Context, run_dir: str) -> Iterator[str]:
    """Yield the command line again, with the run's directory there for its name here."""
    yield from reversed(list(_names(context)))
    yield run_dir
    for param in context.command.params:
        value = context.params.get(str(param.name))
        if isinstance(param, click.Argument) and param.name != "run":
            yield str(value)
        is_given = value is not None and value is not False and value != ()  # 0 is given
        if not isinstance(param, click.Option) or param.name == "run_root" or not is_given:
            continue
        for each in value if isinstance(value, tuple) else [value]:
            name = max(param.opts, key=len)
            yield name if param.is_flag else f"{name}={each}"


def _names(context: click.Context) -> Iterator[str]:
    """Yield the command's name, then that of the group it is in."""
    while context.parent is not None:
        yield str(context.info_name)
        context = context.parent


def _run_there(run: RemoteRun, words: list[str]) -> int:
    from orchestrator.login.commands import run_command

    return run_command(run, words, color=sys.stdout.isatty())


def _settle(run: RemoteRun) -> None:
    """Find out what became of an interrupted submit.

    Raises:
        RunNotFoundError: it had not come to a start.
    """
    from orchestrator.login.commands import settle

    settle(run)


def remote_entries(limit: int) -> list[dict[str, Any]]:
    """Return what `list` shows of runs elsewhere: asked where a connection is open, else as last seen."""
    from orchestrator.login import records

    found = records.all_records()[-limit if limit else None :]
    if not found:
        return []
    from orchestrator.login.commands import entries

    return entries(found)


@click.command("login")
@click.argument("host", required=False)
@click.option("--close", "closing", is_flag=True, help="End the kept connection.")
@click.option("--status", "asking", is_flag=True, help="Show the kept connection; all of them without HOST.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts; for --status and --close.")
def login_command(host: str | None, closing: bool, asking: bool, as_json: bool) -> int:
    """Log in to a login host; commands then use the connection, without a prompt, until it is idle for long.

    HOST is user@host:port as in cluster.login, or a job file.
    """
    from orchestrator.login.client import Connection

    places = _places(host)
    if asking or closing or host is None:
        found = [_end(place) if closing else _state(place) for place in places]
        _print_connections(found, as_json=as_json)
        return 0 if any(each["state"] != _NONE for each in found) else 1
    for place in places:
        Connection(place.spec).open()
        click.echo(f"connected to {place.host}")
    return 0


def _places(host: str | None) -> list[Place]:
    from orchestrator.login.place import Place, places

    if host is None:
        return list(places())
    if Path(host).is_file():
        from orchestrator.job import load_job

        spec = load_job(Path(host)).spec.cluster.login
        if spec is None:
            raise click.UsageError(f"{host} has no cluster.login")
        return [Place(spec.model_dump(mode="json"))]
    known = [place for place in places() if place.host == host]
    if known:
        return known
    from orchestrator.job.login import LoginSpec

    return [Place(LoginSpec(host=host).model_dump(mode="json"))]


def _print_connections(found: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif found:
        print_table(["login", "state", "since", "closes in"], [_row(each) for each in found])
    else:
        click.echo("no connections")


def _row(each: dict[str, Any]) -> list[str]:
    if each["state"] != _OPEN:
        return [each["login"], each["state"], "", ""]
    where = f"{each['user']}@{each['hostname']}:{each['port']}"
    return [each["login"], f"{_OPEN} to {where}", ago(each["since"]), f"{each['closes_in'] / 60:.0f} min"]


def _state(place: Place) -> dict[str, Any]:
    """Return login and state of a connection; an open one has user, hostname, port, since, closes_in."""
    from orchestrator.login.client import Connection

    told = Connection(place.spec).ask("status")
    if told is None:
        return {"login": place.host, "state": _NONE}
    names = ("user", "hostname", "port", "since", "closes_in")
    return {"login": place.host, "state": _OPEN, **{name: told[name] for name in names}}


def _end(place: Place) -> dict[str, Any]:
    from orchestrator.login.client import Connection

    connection = Connection(place.spec)
    ended = connection.ask("close") is not None
    deadline = time.monotonic() + _CLOSE_SECONDS
    while ended and connection.ask("status") is not None and time.monotonic() < deadline:
        time.sleep(0.05)  # it has heard us and is about to end
    return {"login": place.host, "state": "closed" if ended else _NONE}


@click.command("fetch")
@click.argument("run", default="last")
@click.option(
    "--what",
    default="logs",
    show_default=True,
    help="logs: verdict, records, logs, errors; all: everything; or a path in the run directory.",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="Folder to copy to; default: the run's id."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def fetch_command(run: str, what: str, output: Path | None, as_json: bool) -> int:
    """Copy a run's files from the cluster to this machine; what is here already is not sent again."""
    from orchestrator.errors import Problem, RunNotFoundError
    from orchestrator.login import records
    from orchestrator.login.fetch import fetch

    found = records.find(run, Path("runs"))
    if found is None:
        raise RunNotFoundError(
            Problem("no run with that id was submitted from here through a login host", "RUN", run)
        )
    if not found.run_dir:
        _settle(found)
    target = output or Path(found.run_id)
    count, size = fetch(found, what, target)
    if as_json:
        print_json({"run_id": found.run_id, "folder": str(target), "files": count, "bytes": size})
        return 0
    click.echo(f"{target}  {counted(count, 'file')} copied, {size / 1e6:.1f} MB")
    return 0
