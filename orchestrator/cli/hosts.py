"""`orchestrate hosts`: which hosts and slots a job would use, and which ranks run where."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.hosts import HostPool
    from orchestrator.hosts.topology import RankMap

_COLUMNS = ("node", "host", "slots", "ranks", "address", "user", "port")


@dataclass(frozen=True)
class _Source:
    """What decides on hosts: a job file's cluster section, this command's options, or both."""

    backend: str = "ssh"
    hostfile: Path | None = None
    nodes: int | None = None
    slots: int | None = None
    include: str | None = None
    exclude: str | None = None


@click.command("hosts")
@click.argument("job", required=False, type=click.Path(path_type=Path))
@click.option("--hostfile", type=click.Path(path_type=Path), help="Hostfile; replaces the job file's.")
@click.option(
    "--include", help="Hosts and slots to use, NAME[:SLOT,...]@...; replaces the job file's filter."
)
@click.option("--exclude", help="Hosts and slots to leave out; replaces the job file's filter.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")
def hosts_command(
    job: Path | None, hostfile: Path | None, include: str | None, exclude: str | None, as_json: bool
) -> None:
    """Show the hosts a job would use, its ranks on them, and how other tools say the same.

    JOB is a job file; without one give --hostfile.
    """
    from orchestrator.hosts.pool import full_pool, resolve_pool

    if job is None and hostfile is None:
        raise click.UsageError("give a job file or --hostfile")
    source = _source(job, hostfile, include, exclude)
    selected = resolve_pool(source)
    dialects, notes = _dialects(full_pool(source), selected)
    show = _print_json if as_json else _print_text
    show(selected, dialects)
    for note in notes:
        click.echo(note, err=True)


def _source(job: Path | None, hostfile: Path | None, include: str | None, exclude: str | None) -> _Source:
    source = _Source()
    if job is not None:
        from orchestrator.job import load_job

        cluster = load_job(job).spec.cluster
        source = _Source(**{field.name: getattr(cluster, field.name) for field in fields(_Source)})
    if hostfile is not None:
        source = replace(source, hostfile=hostfile)
    if include is not None or exclude is not None:
        source = replace(source, include=include, exclude=exclude)
    return source


def _dialects(pool: HostPool, selected: HostPool) -> tuple[dict[str, str | None], list[str]]:
    """Return the selection in each tool's words (None where it has none), and why not."""
    from orchestrator.errors import FilterError
    from orchestrator.hosts.dialects import deepspeed_filter, pdsh_list, slurm_nodelist

    sayers: dict[str, Callable[[], str]] = {
        "deepspeed": lambda: deepspeed_filter(pool, selected),
        "pdsh": lambda: pdsh_list(selected),
        "slurm": lambda: slurm_nodelist(selected),
    }
    dialects: dict[str, str | None] = {}
    notes = []
    for name, say in sayers.items():
        try:
            dialects[name] = say()
        except FilterError as error:
            dialects[name] = None
            notes.append(f"note: {error}")
    return dialects, notes


def _print_json(pool: HostPool, dialects: dict[str, str | None]) -> None:
    click.echo(json.dumps(_document(pool, dialects), indent=2))


def _document(pool: HostPool, dialects: dict[str, str | None]) -> dict[str, Any]:
    from orchestrator.hosts.topology import rank_map

    ranks = rank_map(pool)
    hosts = [
        {
            "name": host.name,
            "slots": host.slots,
            "first_rank": first,
            "address": host.address,
            "user": host.user,
            "port": host.port,
        }
        for host, first in zip(pool.hosts, ranks.first_ranks, strict=True)
    ]
    master = pool.hosts[0].name
    return {"hosts": hosts, "world_size": ranks.world_size, "master": master, "dialects": dialects}


def _print_text(pool: HostPool, dialects: dict[str, str | None]) -> None:
    from orchestrator.hosts.topology import rank_map

    ranks = rank_map(pool)
    rows = _rows(pool, ranks)
    used = [index for index in range(len(_COLUMNS)) if any(row[index] for row in rows)]
    table = [[row[index] for index in used] for row in rows]
    head = [_COLUMNS[index] for index in used]
    (_print_rich if sys.stdout.isatty() else _print_plain)(head, table)
    click.echo(
        f"\nhosts      {len(pool.hosts)}, {counted(ranks.world_size, 'rank')}, master {pool.hosts[0].name}"
    )
    for name, text in dialects.items():
        click.echo(f"{name:<9}  {_said(name, text)}")


def _rows(pool: HostPool, ranks: RankMap) -> list[list[str]]:
    from orchestrator.hosts.ranges import fold_numbers

    rows = []
    for index, host in enumerate(pool.hosts):
        mine = ranks.ranks(index)
        span = f"{mine[0]}..{mine[-1]}" if len(mine) > 1 else str(mine[0])
        where = [host.address or "", host.user or "", str(host.port or "")]
        rows.append([str(index), host.name, fold_numbers(host.slots), span, *where])
    return rows


def _said(name: str, text: str | None) -> str:
    if text is None:
        return "(no way to say this; see the note)"
    prefix = {"deepspeed": "--include=", "pdsh": "-w ", "slurm": "--nodelist="}[name]
    return prefix + text if text else "(no filter: every host and slot of the hostfile)"


def _print_plain(head: list[str], rows: list[list[str]]) -> None:
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _print_rich(head: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
