"""`orchestrate init`: a job file by question and answer, or from a template."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from orchestrator.init.document import Settings
    from orchestrator.init.machine import Machine
    from orchestrator.init.screen import Screen


@dataclass(frozen=True)
class _Wish:
    """What the user asked for."""

    path: Path
    yes: bool
    settings: tuple[str, ...]
    force: bool


def _complete_template(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the templates that begin so, for the shell."""
    from orchestrator.init.templates import templates

    return [each.name for each in templates() if each.name.startswith(incomplete)]


@click.command("init")
@click.argument("file", default="job.yaml", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "template",
    metavar="TEMPLATE",
    help="Begin with a template; --list names them.",
    shell_complete=_complete_template,
)
@click.option("--list", "show_list", is_flag=True, help="List the templates and write nothing.")
@click.option("--yes", "-y", is_flag=True, help="Ask nothing: take the default of every question.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set one value; it is not asked for."
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def init_command(file: Path, template: str | None, show_list: bool, **wish: Any) -> None:
    """Write a job file: FILE, or job.yaml in this folder.

    Asks one question after the other. What it proposes comes from this machine: its GPUs, Slurm's
    partitions, hostfiles, training scripts and Accelerate's configuration. Nothing is written before
    the last answer. The left arrow goes back, Ctrl-C ends it.
    """
    if show_list:
        _print_templates()
        return
    asked = _Wish(file, **wish)
    _check_folder(file)
    if template is not None:
        _from_template(template, asked)
    elif asked.yes:
        _from_defaults(asked)
    else:
        _from_answers(asked)


def _print_templates() -> None:
    from orchestrator.init.templates import templates

    found = templates()
    width = max(len(template.name) for template in found)
    for template in found:
        click.echo(f"{template.name:<{width}}  {template.about}")


def _check_folder(path: Path) -> None:
    if path.is_dir():
        raise JobFileError(Problem("is a folder", "FILE", str(path), f"write {path / 'job.yaml'}"))
    if not path.absolute().parent.is_dir():
        fix = f"make it first: mkdir -p {shlex.quote(str(path.parent))}"
        raise JobFileError(Problem("there is no such folder", "FILE", str(path.parent), fix))


def _from_template(name: str, wish: _Wish) -> None:
    from orchestrator.init.document import blame_settings, review, with_settings
    from orchestrator.init.templates import find_template

    template = find_template(name)
    _refuse_existing(wish)
    values = dict(_split(setting) for setting in wish.settings)
    text = with_settings(template.path.read_text(encoding="utf-8"), str(wish.path), values)
    found = review(text, wish.path.absolute().parent, str(wish.path), os.environ)
    if found.wrong:
        raise JobFileError(*blame_settings(found.wrong, wish.settings))
    for other in template.others:
        _write_other(wish.path.with_name(other.name), other.read_text(encoding="utf-8"))
    _finish(wish, text)


def _write_other(path: Path, text: str) -> None:
    """Write a file that goes beside the job file; one that is there is the user's own, and stays."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        click.echo(f"wrote {path}")
    except FileExistsError:
        click.echo(f"{path} is there already and stays as it is")
    except OSError as error:
        raise JobFileError(Problem(f"cannot be written: {error.strerror}", "FILE", str(path))) from error


def _split(setting: str) -> tuple[str, str]:
    key, equals, value = setting.partition("=")
    if not equals or "" in key.strip().split("."):
        fix = "name a key path and a value"
        raise JobFileError(Problem("not of the form a.b=value", f"--set {setting}", fix=fix))
    return key.strip(), value


def _here(wish: _Wish) -> tuple[Machine, Settings]:
    from orchestrator.init.document import read_settings
    from orchestrator.init.machine import look

    settings = read_settings(wish.settings)
    return look(wish.path.absolute().parent, os.environ), settings


def _from_defaults(wish: _Wish) -> None:
    _refuse_existing(wish)
    _finish(wish, _default_text(wish, *_here(wish)))


def _default_text(wish: _Wish, machine: Machine, settings: Settings) -> str:
    """Return the job file of the defaults.

    Raises:
        JobFileError: what --set says is wrong.
    """
    from orchestrator.init.document import blame_settings, review, text_of
    from orchestrator.init.flow import complete

    text = text_of(complete(settings.answers, machine), settings.others, machine, str(wish.path))
    found = review(text, machine.folder, str(wish.path), os.environ)
    if found.wrong:
        raise JobFileError(*blame_settings(found.wrong, wish.settings))
    return text


def _from_answers(wish: _Wish) -> None:
    from orchestrator.init.dialogue import Dialogue
    from orchestrator.init.screen import open_screen

    machine, settings = _here(wish)
    if wish.settings:
        _default_text(wish, machine, settings)  # a wrong one is told before the first question
    screen = open_screen(os.environ)
    if wish.path.exists() and not wish.force:
        if not _may_replace(wish.path, screen):
            click.echo(f"{wish.path} stays as it is; name another file: orchestrate init FILE")
            return
        wish = replace(wish, force=True)
    if machine.accelerate_path:
        _tell_of_accelerate(machine)
    text = Dialogue(machine, settings, screen).run(str(wish.path))
    _finish(wish, text)


def _may_replace(path: Path, screen: Screen) -> bool:
    from orchestrator.init.question import Choice

    choices = (Choice(False, "no", "Nothing is written."), Choice(True, "yes", "After the last answer."))
    click.secho(f"? {path} is there already. Replace it?", bold=True)
    return screen.choose(choices, 0) in (1, "yes")


def _tell_of_accelerate(machine: Machine) -> None:
    path = machine.accelerate_path
    click.echo(f"Defaults of DeepSpeed come from {path}; `orchestrate import {path}` takes over all of it.")


def _refuse_existing(wish: _Wish) -> None:
    if wish.path.exists() and not wish.force:
        fix = "give --force to replace it, or name another file"
        raise JobFileError(Problem("is there already", "FILE", str(wish.path), fix))


def _finish(wish: _Wish, text: str) -> None:
    """Write the file; say what stands against starting it, and what comes next."""
    from orchestrator.init.dialogue import show_review
    from orchestrator.init.document import review

    _write(wish, text)
    click.echo(click.style(f"wrote {wish.path}", bold=True))
    show_review(review(text, wish.path.absolute().parent, str(wish.path), os.environ))
    name = shlex.quote(str(wish.path))
    width = len(f"orchestrate submit {name}")
    click.echo("next:")
    for command, what in (
        ("plan", "hosts, ranks, memory and traffic"),
        ("check", "whether the hosts are ready"),
        ("submit", "start it"),
    ):
        click.echo(f"  {f'orchestrate {command} {name}':<{width}}  {what}")


def _write(wish: _Wish, text: str) -> None:
    """Write the file; one that has come since is not replaced without leave."""
    path = wish.path
    try:
        if wish.force and path.exists():
            _replace(path, text)
            return
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse_existing(wish)
    except OSError as error:
        path.unlink(missing_ok=True)  # half of it, on a full disk
        raise JobFileError(Problem(f"cannot be written: {error.strerror}", "FILE", str(path))) from error


def _replace(path: Path, text: str) -> None:
    """Replace a file as a whole: what was there is lost only when all of the new one is on the disk."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(path.stat().st_mode & 0o777)
        new.replace(path.resolve())
    finally:
        new.unlink(missing_ok=True)
