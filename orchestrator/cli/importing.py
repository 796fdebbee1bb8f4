"""`orchestrate import` and `orchestrate export`: job files from other tools' files, and the other way."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from orchestrator.importing.finish import Imported

_COLOURS = {"carried": "green", "changed": "yellow", "not carried": "red"}


@click.command("import")
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--output", "-o", default="job.yaml", metavar="FILE", help="The job file; - prints it.")
@click.option(
    "--deepspeed-config", metavar="JSON", help="DeepSpeed's file, in place of the one that is named."
)
@click.option("--hostfile", metavar="FILE", help="The hostfile, in place of the one that is named.")
@click.option("--script", metavar="COMMAND", help="The training script, where the source names none.")
@click.option(
    "--prefer",
    type=click.Choice(["file", "fields"]),
    help="What counts where an Accelerate configuration and its DeepSpeed file both say a thing.",
)
@click.option("--accelerate-default", is_flag=True, help="Import Accelerate's default configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the report and the job file as JSON.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def import_command(sources: tuple[str, ...], output: str, as_json: bool, force: bool, **wish: Any) -> None:
    """Make a job file of what you have.

    SOURCE is an Accelerate configuration (YAML or JSON), a script for sbatch or a shell, or, behind --, a
    command line:

    \b
        orchestrate import accelerate.yaml --script train.py
        orchestrate import train.sbatch -o job.yaml
        orchestrate import -- deepspeed --hostfile hosts train.py --epochs 3

    What was carried, what was changed and what could not be carried is reported on stderr.
    """  # noqa: D301 - \b is click's own mark
    from orchestrator.importing.make import Wish, make

    path = Path("job.yaml" if output == "-" else output)
    if output != "-":
        _check_target(path, "--output", force=force)
    default = wish.pop("accelerate_default")
    made = make(Wish(sources, path, Path.cwd(), default=default, **wish), os.environ)
    if output != "-":
        _write(path, made.text, "--output")
    if as_json:
        _print_json(made, output)
    else:
        _report(made)
        if output == "-":
            click.echo(made.text, nl=False)
        else:
            _say_next(path)


def _check_target(path: Path, option: str, *, force: bool) -> None:
    if path.is_dir():
        raise JobFileError(Problem("is a folder", option, str(path), f"write {path / 'job.yaml'}"))
    if not path.absolute().parent.is_dir():
        fix = f"make it first: mkdir -p {shlex.quote(str(path.parent))}"
        raise JobFileError(Problem("there is no such folder", option, str(path.parent), fix))
    if path.exists() and not force:
        fix = "give --force to replace it, or name another file"
        raise JobFileError(Problem("is there already", option, str(path), fix))


def _write(path: Path, text: str, option: str) -> None:
    """Write a file as a whole: what was there is lost only when all of the new one is on the disk."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        if path.exists():
            new.chmod(path.stat().st_mode & 0o777)
        new.replace(path.resolve())
    except OSError as error:
        raise JobFileError(Problem(f"cannot be written: {error.strerror}", option, str(path))) from error
    finally:
        new.unlink(missing_ok=True)


def _print_json(made: Imported, output: str) -> None:
    from dataclasses import asdict

    from orchestrator.cli.output import print_json

    print_json(
        {
            "file": None if output == "-" else output,
            "text": made.text,
            "notes": [note.to_json() for note in made.notes],
            "problems": [asdict(problem) for problem in made.later],
            "warnings": list(made.warnings),
        }
    )


def _report(made: Imported) -> None:
    for kind, colour in _COLOURS.items():
        notes = [note for note in made.notes if note.kind == kind]
        if notes:
            click.secho(f"{kind}:", fg=colour, bold=True, err=True)
        for note in notes:
            click.echo(f"  {note.source} -> {note.text}", err=True)
    for text in (*map(str, made.later), *made.warnings):
        click.echo(click.style("warning: ", fg="yellow", bold=True) + text, err=True)


def _say_next(path: Path) -> None:
    name = shlex.quote(str(path))
    click.secho(f"wrote {path}", bold=True)
    click.echo(f"next:\n  orchestrate plan {name}\n  orchestrate submit {name}")


@click.command("export")
@click.argument("kind", type=click.Choice(["accelerate", "deepspeed", "hostfile"]))
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The file to write; default: stdout.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set one value of the job file.")
@click.option("--fields", is_flag=True, help="For accelerate: its own fields, without a DeepSpeed file.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
def export_command(
    kind: str, job: Path, output: Path | None, settings: tuple[str, ...], *, fields: bool, force: bool
) -> None:
    """Write what a job file says for another tool.

    accelerate writes a configuration for `accelerate launch --config_file`, with DeepSpeed's JSON and the
    hostfile beside it; deepspeed writes DeepSpeed's JSON; hostfile writes HOST slots=N lines.
    """
    from orchestrator.importing.exporting import export
    from orchestrator.job import load_job

    if fields and kind != "accelerate":
        raise click.UsageError("--fields is for accelerate")
    exported = export(kind, load_job(job, settings), output, fields=fields)
    if output is None:
        click.echo(exported.files[0][1], nl=False)
    else:
        for path, _ in exported.files:
            _check_target(path, "--output", force=force)
        for path, text in exported.files:
            _write(path, text, "--output")
            click.echo(f"wrote {path}", err=True)
    for note in exported.notes:
        click.echo(f"note: {note}", err=True)
