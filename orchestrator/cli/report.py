"""`orchestrate report` and `compare`: a run, or several, as one HTML page or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import print_json, print_table
from orchestrator.cli.runs import complete_run
from orchestrator.errors import CommandError, OrchestratorError, Problem
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.login.records import RemoteRun

_ROOT = click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print what the page shows as JSON instead.")
_OUTPUT = click.option(
    "--output", "-o", type=click.Path(path_type=Path), help="The file to write; `-` prints it."
)
_OPEN = click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
_FEWEST, _MOST = 2, 8
_LARGE = 50 << 20  # bytes of metrics that take seconds to read


@click.command("report")
@click.argument("run", default="last", shell_complete=complete_run)
@_ROOT
@_OUTPUT
@_OPEN
@_JSON
def report_command(run: str, run_root: Path, output: Path | None, opened: bool, as_json: bool) -> int:
    """Write one page of all that is known of a run: what ran, how it ended and why, how its time was spent.

    RUN is the id of a run, a unique beginning of one, a directory, or `last`; it need not be over. The page
    is one file that needs no network; by default RUN.html in this folder.
    """
    document = _document(run, run_root)
    if as_json:
        print_json(document)
        return 0
    from orchestrator.report.page import page

    return _deliver(page(document), output or Path(f"{document['run_id']}.html"), opened=opened)


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", shell_complete=complete_run)
@_ROOT
@_OUTPUT
@_OPEN
@_JSON
def compare_command(
    runs: tuple[str, ...], run_root: Path, output: Path | None, opened: bool, as_json: bool
) -> int:
    """Lay the curves of two to eight runs over each other, and say what differed between their jobs.

    A RUN is named as for `report`; the id of a sweep stands for all its runs. The page is one file that needs
    no network; by default compare.html in this folder.
    """
    from orchestrator.report.compare import compare

    names = [name for word in runs for name in _names(word, run_root)]
    if not _FEWEST <= len(names) <= _MOST:
        fix = f"name {_FEWEST} to {_MOST} of them"
        raise click.UsageError(f"{counted(len(names), 'run')} cannot be compared; {fix}")
    found = compare([_document(name, run_root) for name in names])
    if as_json:
        print_json(found)
        return 0
    from orchestrator.report.compare_page import compare_page, terminal_rows

    head, rows = terminal_rows(found)
    if output != Path("-"):
        print_table(head, rows)
    return _deliver(compare_page(found), output or Path("compare.html"), opened=opened)


def _names(word: str, run_root: Path) -> list[str]:
    from orchestrator import registry

    sweep = registry.find_sweep(word, run_root)
    return [word] if sweep is None else [str(run.path) for _, run in sweep.points()]


def _document(word: str, run_root: Path) -> dict[str, Any]:
    """Return a run's document; of a run elsewhere, the one that is made there."""
    from orchestrator.login import records

    remote = records.find(word, run_root)
    if remote is not None:
        return _from_there(remote)
    from orchestrator import registry
    from orchestrator.report.document import document

    run = registry.find(word, run_root)
    size = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    if size > _LARGE and sys.stderr.isatty():
        click.echo(f"reading {size / 1e6:,.0f} MB of metrics", err=True)
    try:
        return document(run)
    except (OSError, ValueError) as error:
        raise OrchestratorError(Problem(f"its directory cannot be read: {error}", str(run.path))) from error


def _from_there(run: RemoteRun) -> dict[str, Any]:
    from orchestrator.login.commands import settle, talk_to

    if not run.run_dir:
        settle(run)
    said, errors = bytearray(), bytearray()
    with talk_to(run, {"verb": "command", "words": ["report", "--json", run.run_dir]}) as talk:
        code = talk.relay(said.extend, errors.extend)
    if code:
        words = errors.decode("utf-8", "replace").strip() or f"`orchestrate report` ended with {code} there"
        raise OrchestratorError(Problem(words.removeprefix("error: "), run.host))
    found: dict[str, Any] = json.loads(said)
    from orchestrator.report.document import VERSION

    if found.get("document") != VERSION:
        what, fix = "orchestrate there makes reports of another form", "install one version here and there"
        raise OrchestratorError(Problem(what, run.host, str(found.get("orchestrate")), fix))
    return found


def _deliver(text: str, target: Path, *, opened: bool) -> int:
    """Write the page and say where it is; with `opened` have a browser show it."""
    if target == Path("-"):
        sys.stdout.write(text)
        return 0
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"cannot write the page: {error.strerror}"
        fix = "name another file with -o"
        raise CommandError(Problem(what, "--output", str(target), fix)) from error
    click.echo(str(target.absolute()))
    if opened:
        _show(target.absolute())
    return 0


def _show(path: Path) -> None:
    import webbrowser

    if not webbrowser.open(path.as_uri()):
        click.echo("no browser could be started here; copy the file to where one is", err=True)
