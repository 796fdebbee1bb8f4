"""`orchestrate logs`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from orchestrator.cli.runs import complete_run


@click.command("logs")
@click.argument("run", default="last", shell_complete=complete_run)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends; Ctrl-C leaves it alone.")
@click.option("--host", "hosts", multiple=True, help="Only this host; may be given again.")
@click.option("--rank", "ranks", help="Only these ranks, such as 0,8-15; without the hosts' own logs.")
@click.option("--grep", "pattern", help="Only lines in which this regular expression is found.")
@click.option("--attempt", type=int, help="Which attempt; the last when not given.")
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def logs_command(  # noqa: PLR0917 - click calls it by name
    run: str,
    follow: bool,
    hosts: tuple[str, ...],
    ranks: str | None,
    pattern: str | None,
    attempt: int | None,
    run_root: Path,
) -> int:
    """Show the logs of a run's hosts and ranks, each line with its host and rank.

    RUN is a run id, also that of a sweep's point (SWEEP.3), a unique beginning of one, a run directory, or
    `last`.
    """
    from orchestrator import registry
    from orchestrator.cli.login import forward
    from orchestrator.monitor.logs import Selection, print_logs

    selection = Selection(frozenset(hosts), _ranks(ranks), _regex(pattern))
    if (code := forward(run, run_root)) is not None:
        return code
    return print_logs(registry.find(run, run_root), selection, attempt=attempt, follow=follow)


def _regex(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise click.BadParameter(
            f"{pattern!r} is no regular expression: {error}", param_hint="--grep"
        ) from error


def _ranks(text: str | None) -> frozenset[int] | None:
    """Read `0,8-15`."""
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if high < low:
            raise click.BadParameter(f"{text!r} is no set of ranks such as 0,8-15", param_hint="--rank")
        found.update(range(low, high + 1))
    return frozenset(found)
