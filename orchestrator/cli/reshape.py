"""`orchestrate checkpoint reshape`, and how a conversion is shown while it works."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.checkpoint_place import place_of
from orchestrator.cli.output import print_json
from orchestrator.cli.runs import complete_run
from orchestrator.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.checkpoints.place import Place
    from orchestrator.checkpoints.tag import Tag
    from orchestrator.checkpoints.universal_make import Conversion

_WORDS = {"extract": "taking the shards apart", "merge": "putting the parameters together"}


@click.command("reshape")
@click.argument("run", metavar="RUN|FOLDER", shell_complete=complete_run)
@click.option("--tag", "name", help="The checkpoint; default: the last complete one.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes at a time; default: as memory allows.")
@click.option("--python", help="Python with DeepSpeed; default: train.python of the run, else ours.")
@click.option("--dry-run", is_flag=True, help="Say what it needs; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.option(
    "--run-root", type=click.Path(path_type=Path), default="runs", help="Folder of runs to look in as well."
)
def reshape_command(run: str, run_root: Path, name: str | None, **options: Any) -> int:
    """Make a checkpoint of ZeRO's fit any number of ranks.

    It is DeepSpeed's universal checkpoint, beside the tag: TAG_universal. `orchestrate resume` does this by
    itself where it is needed. hpZ needs no conversion: ZeRO's shards are the same with and without it.
    """
    from orchestrator.checkpoints import place as places

    place = place_of(run, run_root)
    if isinstance(place, int):
        return place
    return _reshape(place, places.choose(place, name), **options)


def _reshape(
    place: Place, tag: Tag, *, workers: int | None, python: str | None, dry_run: bool, as_json: bool
) -> int:
    from dataclasses import asdict

    from orchestrator.checkpoints import universal
    from orchestrator.checkpoints.universal_make import conversion_for, notes_of

    against = universal.why_not_convertible(tag)
    if against is not None:
        raise CheckpointError(against)
    made = universal.converted(tag)
    conversion = conversion_for(tag, place.plan, python, workers=workers)
    if made is not None:
        notes = notes_of(made.path)
    else:
        if not as_json:
            click.echo(f"{tag.name}  {of_ranks(tag)}, ZeRO-{tag.stage}")
            click.echo(needs_words(conversion, tag.path.parent))
        if dry_run:
            conversion.check()
            if as_json:
                print_json(_described(tag) | {"dry_run": True, "needs": asdict(conversion.needs)})
            return 0
        notes = convert(conversion, quiet=as_json)
    _report(tag, notes, before=made is not None, as_json=as_json)
    return 0


def _report(tag: Tag, notes: list[str], *, before: bool, as_json: bool) -> None:
    told = _described(tag)
    if as_json:
        print_json(told | {"made_before": before, "notes": notes})
        return
    click.echo(f"{'there already' if before else 'made'}  {told['universal']}")
    print_notes(notes)
    click.echo("load it with  deepspeed.checkpoint.load_universal: true, or `orchestrate resume`")


def _described(tag: Tag) -> dict[str, Any]:
    from orchestrator.checkpoints.universal import universal_name

    path = tag.path.parent / universal_name(tag)
    return {"tag": tag.name, "ranks": tag.world_size, "universal": str(path)}


def of_ranks(tag: Tag) -> str:
    """Return how many ranks saved a tag, in words."""
    from orchestrator.words import counted

    return (
        "of an unknown number of ranks" if tag.world_size is None else f"of {counted(tag.world_size, 'rank')}"
    )


def print_notes(notes: list[str]) -> None:
    """Print what a universal checkpoint does not carry."""
    for note in notes:
        click.echo(click.style("note: ", fg="yellow") + note, err=True)


def needs_words(conversion: Conversion, folder: Path) -> str:
    """Return what a conversion takes, and what of that there is."""
    from orchestrator.checkpoints.universal_make import gigabytes
    from orchestrator.checkpoints.universal_needs import free_memory

    needs, free = conversion.needs, free_memory()
    room = gigabytes(shutil.disk_usage(folder).free)
    there = "" if free is None else f" ({gigabytes(free)} free)"
    return (
        f"needs {gigabytes(needs.disk)} of disk while it is made ({room} free) and "
        f"{gigabytes(needs.kept)} afterwards; {gigabytes(needs.memory)} of memory{there}"
    )


def convert(conversion: Conversion, *, quiet: bool = False) -> list[str]:
    """Run a conversion and show how far it is; Ctrl-C ends it and leaves nothing behind."""
    return conversion.run((lambda _phase, _share: None) if quiet else _shown_on(sys.stderr.isatty()))


def _shown_on(terminal: bool) -> Callable[[str, float], None]:
    """Return what shows progress: a line that changes on a terminal, a line a phase in a pipe."""
    last: list[str] = []

    def show(phase: str, share: float) -> None:
        words = _WORDS.get(phase, phase)
        if terminal:
            click.echo(f"\r{words}  {share:4.0%}{'' if share < 1 else chr(10)}", nl=False, err=True)
        elif last != [phase]:
            last[:] = [phase]
            click.echo(words, err=True)

    return show
