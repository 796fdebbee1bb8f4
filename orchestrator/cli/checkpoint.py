"""`orchestrate checkpoint`: what a run has saved, its weights as one model, and which of it to keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.output import ago, print_json, print_table
from orchestrator.cli.runs import complete_run

if TYPE_CHECKING:
    from orchestrator.checkpoints.place import Place

_RUN = click.argument("run", metavar="RUN|FOLDER", shell_complete=complete_run)
_ROOT = click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@click.group("checkpoint")
def checkpoint_group() -> None:
    """List, consolidate, reshape and prune checkpoints.

    RUN is a run as in `orchestrate status`, for the checkpoint_dir of its job file; FOLDER is any folder with
    checkpoints, whoever wrote them.
    """


@checkpoint_group.command("list")
@_RUN
@_ROOT
@_JSON
def list_command(run: str, run_root: Path, as_json: bool) -> int:
    """Show every checkpoint, the newest last, and what is missing in those that are not complete."""
    place = _place(run, run_root)
    if isinstance(place, int):
        return place
    from orchestrator.checkpoints.show import describe

    shown = describe(place.folder)
    if as_json:
        print_json(shown)
        return 0
    if not shown["tags"]:
        click.echo(f"no checkpoints in {place.what}")
        return 0
    click.echo(place.what)
    head = ["tag", "step", "size", "state", "stage", "ranks", "saved"]
    print_table(head, [_row(tag) for tag in shown["tags"]])
    for word in shown["notes"]:
        click.echo(click.style("note: ", fg="yellow") + word)
    return 0


def _row(tag: dict[str, Any]) -> list[str]:
    from orchestrator.checkpoints.show import size_words

    marks = [word for word in ("latest", "resumable") if tag[word]]
    state = "complete" if tag["complete"] else f"NOT COMPLETE: {tag['why']}"
    return [
        tag["name"],
        _number(tag["step"]),
        size_words(tag["size"]),
        ", ".join([state, *marks, *tag["more"]]),
        _number(tag["stage"]),
        _number(tag["world_size"]),
        ago(tag["saved"]) + " ago" if tag["saved"] else "",
    ]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _place(run: str, run_root: Path) -> Place | int:
    """Return where the checkpoints are; the exit code for a run elsewhere, where the command has run now."""
    from orchestrator.checkpoints.place import find_place
    from orchestrator.cli.login import forward

    if not Path(run).expanduser().is_dir() and (code := forward(run, run_root)) is not None:
        return code
    return find_place(run, run_root)


@checkpoint_group.command("consolidate")
@_RUN
@click.argument("out", type=click.Path(path_type=Path))
@_ROOT
def consolidate_command(run: str, out: Path, run_root: Path) -> int:
    """Write the weights of a checkpoint as one model: safetensors files with an index."""
    raise NotImplementedError


@checkpoint_group.command("prune")
@_RUN
@_ROOT
def prune_command(run: str, run_root: Path) -> int:
    """Delete old checkpoints."""
    raise NotImplementedError
