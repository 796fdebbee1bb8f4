"""From a source (a configuration, a script, a command line) to a job file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.accelerate import map_accelerate
from orchestrator.importing.accelerate_read import default_path, read_settings, read_text
from orchestrator.importing.command import Context, find_start, map_start
from orchestrator.importing.draft import Draft
from orchestrator.importing.finish import Imported, finish
from orchestrator.importing.program import set_program
from orchestrator.importing.script import map_script
from orchestrator.importing.slurm_options import Request
from orchestrator.importing.slurm_section import write_slurm
from orchestrator.importing.variables import masked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CONFIGURATIONS = (".yaml", ".yml", ".json")
_COMMAND = "command line"


@dataclass(frozen=True)
class Wish:
    """What is to be imported.

    Attributes:
        sources: one file, or the words of a command line.
        path: of the job file.
        cwd: folder of the command line, absolute.
        script: the training script with its arguments, where the source names none.
        deepspeed_config: DeepSpeed's file, in place of the one that the source names.
        hostfile: the hostfile, likewise.
        prefer: see map_accelerate.
        default: read Accelerate's default configuration.
    """

    sources: tuple[str, ...]
    path: Path
    cwd: Path
    script: str | None = None
    deepspeed_config: str | None = None
    hostfile: str | None = None
    prefer: str | None = None
    default: bool = False


def make(wish: Wish, environ: Mapping[str, str]) -> Imported:
    """Return the job file that does what the sources do.

    Raises:
        JobFileError: there is no source, it is wrong, or no job file can say it.
    """
    draft = Draft(wish.cwd)
    if wish.script is not None:
        set_program(draft, _split(wish.script, "--script"), "--script", module=False, no_python=False)
    name = _map(wish, draft, environ)
    if wish.deepspeed_config is not None and draft.get("deepspeed.config_file") is None:
        _use_file(draft, wish.deepspeed_config)
    if wish.hostfile is not None:
        _use_hostfile(draft, wish.hostfile)
    return finish(draft, name, wish.path, environ)


def _use_hostfile(draft: Draft, text: str) -> None:
    backend = draft.get("cluster.backend")
    if backend not in ("pdsh", "ssh"):
        draft.drop("--hostfile", f"backend {backend} reads no hostfile")
        return
    draft.carry("--hostfile", "cluster.hostfile", draft.path(text))
    draft.comments.pop("cluster.hostfile", None)


def _use_file(draft: Draft, text: str) -> None:
    draft.carry("--deepspeed-config", "deepspeed.config_file", draft.path(text))


def _map(wish: Wish, draft: Draft, environ: Mapping[str, str]) -> str:
    """Write the sources into the draft; return what they are called."""
    context = Context(environ, wish.prefer)
    if wish.default:
        if wish.sources:
            what = "reads Accelerate's own default; a source was given too"
            raise JobFileError(Problem(what, "--accelerate-default", wish.sources[0], "give one of the two"))
        return _map_configuration(default_path(environ), wish, draft)
    if not "".join(wish.sources).strip():
        fix = "name a file, write a command line behind --, or give --accelerate-default"
        raise JobFileError(Problem("nothing to import", "SOURCE", fix=fix))
    words = list(wish.sources)
    path = Path(words[0])
    if len(words) == 1 and (path.is_file() or not re.search(r"\s", words[0])):
        return _map_file(path, wish, draft, context)
    if len(words) == 1:
        words = _split(words[0], "SOURCE")
    _map_words(words, draft, context)
    return shlex.join(masked(words))


def _split(text: str, where: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise JobFileError(Problem(f"cannot be read: {error}", where, text, "close the quote")) from None


def _map_file(path: Path, wish: Wish, draft: Draft, context: Context) -> str:
    text = read_text(path)
    is_script = (
        text.startswith("#!") or "#SBATCH" in text or path.suffix in (".sh", ".sbatch", ".slurm", ".bash")
    )
    if is_script and path.suffix not in _CONFIGURATIONS:
        map_script(text, path, draft, context)
        return str(path)
    return _map_configuration(path, wish, draft)


def _map_configuration(path: Path, wish: Wish, draft: Draft) -> str:
    settings = read_settings(path)
    if wish.deepspeed_config is not None:
        settings.values["deepspeed_config_file"] = wish.deepspeed_config
        settings.places["deepspeed_config_file"] = "--deepspeed-config"
    map_accelerate(settings, draft, prefer=wish.prefer)
    return str(path)


def _map_words(words: Sequence[str], draft: Draft, context: Context) -> None:
    start = find_start(words, _COMMAND)
    if start is None:
        what = "starts no ranks: expected deepspeed, torchrun, accelerate launch or python"
        fix = "name a file, or write the whole command behind --"
        raise JobFileError(Problem(what, _COMMAND, shlex.join(masked(words)), fix))
    if start.step is None:
        map_start(start, draft, _COMMAND, context)
        return
    request = Request()
    for name, value in start.step:
        if name in ("nodes", "ntasks", "ntasks-per-node"):
            request.add(name, value, _COMMAND)
    map_start(start, draft, _COMMAND, Context(context.environ, context.prefer, request, alone=True))
    if request.number("nodes"):
        draft.data.get("cluster", {}).pop("nodes", None)
    write_slurm(draft, request)
