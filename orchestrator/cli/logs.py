"""`orchestrate logs`."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.ranksets import rank_set
from orchestrator.cli.runs import complete_run

if TYPE_CHECKING:
    from orchestrator.monitor.logs import Selection, View
    from orchestrator.rundir import RunDir

_FOLD_RANKS = 4  # with more at a terminal, what they say alike is folded


@click.command("logs")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends; Ctrl-C leaves it alone.")
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="Only this host, or node[1-4]; may be given again."
)
@click.option("--rank", "ranks", help="Only these ranks, such as 0,8-15; without the hosts' own logs.")
@click.option("--out", is_flag=True, help="Only what ranks wrote to stdout.")
@click.option("--err", is_flag=True, help="Only what ranks wrote to stderr.")
@click.option("--log", is_flag=True, help="Only the hosts' own logs: agent and training launcher.")
@click.option("--grep", "pattern", help="Only lines in which this regular expression is found.")
@click.option(
    "--since", metavar="WHEN", help="Only later lines: 10m (ago), 14:05, 2026-11-21T14:05, @SECONDS."
)
@click.option("--until", metavar="WHEN", help="Only earlier lines.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of these.")
@click.option("--attempt", metavar="N", help="Which attempt, or `all`; the last when not given.")
@click.option("--times", is_flag=True, help="Begin each line with its time.")
@click.option("--fold", is_flag=True, help="One line for what ranks say alike: `[0-63] text`.")
@click.option("--no-fold", is_flag=True, help="Never; the default but at a terminal with more than 4 ranks.")
@click.option("--bars", is_flag=True, help="Every state of progress bars, not only the last one.")
@click.option("--color", is_flag=True, help="Colours in a pipe too.")
@click.option("--raw", is_flag=True, help="One log's own bytes and nothing else.")
@click.option(
    "--json", "as_json", is_flag=True, help="An object a line: time, attempt, host, rank, stream, text."
)
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def logs_command(run: str, run_root: Path, follow: bool, **words: Any) -> int:
    """Show the logs of a run's hosts and ranks by time, each line with its host and rank.

    RUN is a run id, also that of a sweep's point (SWEEP.3), a unique beginning of one, a run directory, or
    `last`.

    Hosts tell times to about a quarter of a second. With -f, lines come in the order in which they arrive.
    """
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.monitor.logs import print_logs

    _refuse_contradictions(follow=follow, **words)
    selection = _selection(words)
    attempt = _attempt(words["attempt"])
    if (code := forward(run, run_root)) is not None:
        return code
    found = registry.find(run, run_root)
    view = _view(words, _rank_count(found, selection))
    return print_logs(found, selection, attempt=attempt, follow=follow, view=view)


def _refuse_contradictions(**words: Any) -> None:
    pairs = [
        ("follow", "until"),
        ("fold", "no_fold"),
        ("raw", "as_json"),
        ("raw", "fold"),
        ("raw", "times"),
        ("as_json", "fold"),
        ("log", "ranks"),
    ]
    for one, other in pairs:
        if words[one] and words[other]:
            names = (f"--{name.replace('_', '-').removeprefix('as-')}" for name in (one, other))
            raise click.UsageError(f"{' and '.join(names)} do not go together".replace("--ranks", "--rank"))


def _selection(words: dict[str, Any]) -> Selection:
    from orchestrator.monitor.logs import Selection

    since, until = _moment("--since", words["since"]), _moment("--until", words["until"])
    if since is not None and until is not None and until <= since:
        raise click.UsageError(
            f"--until {words['until']} is no later than --since {words['since']}: nothing lies between them"
        )
    return Selection(
        hosts=frozenset(name for text in words["hosts"] for name in _hosts(text)),
        ranks=rank_set(words["ranks"]),
        pattern=_regex(words["pattern"]),
        kinds=frozenset(kind for kind in ("out", "err", "log") if words[kind]),
        since=since,
        until=until,
        tail=words["tail"],
    )


def _view(words: dict[str, Any], ranks: int) -> View:
    from orchestrator.monitor.logs import View

    forced = click.get_current_context().color  # set for a run on a login host: the terminal is there
    terminal = sys.stdout.isatty() if forced is None else forced
    plain = words["raw"] or words["as_json"] or words["no_fold"]
    return View(
        fold=words["fold"] or (terminal and ranks > _FOLD_RANKS and not plain),
        raw=words["raw"],
        as_json=words["as_json"],
        times=words["times"],
        colour=terminal or words["color"],
        bars=words["bars"],
    )


def _rank_count(run: RunDir, selection: Selection) -> int:
    """Return how many ranks may be shown."""
    hosts = run.latest_plan().hosts
    chosen = [host for host in hosts if not selection.hosts or host.name in selection.hosts]
    return sum(selection.ranks is None or rank in selection.ranks for host in chosen for rank in host.ranks)


def _attempt(text: str | None) -> int | str | None:
    if text is None or text == "all":
        return text
    if not re.fullmatch("[0-9]{1,9}", text):
        raise click.BadParameter(f"{text!r} is no attempt: give a number, or `all`", param_hint="--attempt")
    return int(text)


def _moment(option: str, text: str | None) -> float | None:
    from orchestrator.monitor.logs.moments import parse_moment

    try:
        return None if text is None else parse_moment(text, time.time())
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no moment: {error}", param_hint=option) from error


def _hosts(text: str) -> list[str]:
    """Read `node[1-4],login`; a name that is no such set stays as it is."""
    from orchestrator.hosts.ranges import RangeSyntaxError, expand_nodelist

    try:
        return expand_nodelist(text)
    except RangeSyntaxError:
        return [text]


def _regex(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise click.BadParameter(
            f"{pattern!r} is no regular expression: {error}", param_hint="--grep"
        ) from error
