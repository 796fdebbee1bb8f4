"""From a draft to the text of a job file, checked as `submit` would check it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.errors import Problem
    from orchestrator.importing.draft import Draft, Note

_HEAD = "Made by `orchestrate import` from {source}."
_HF_OPTIONS = (
    "--deepspeed",
    "--deepspeed_config",
    "--deepspeed-config",
    "--ds_config",
    "--deepspeed_config_file",
)
DS_CONFIG = "{ds_config}"


@dataclass(frozen=True)
class Imported:
    """What an import has made.

    Attributes:
        text: of the job file.
        notes: what was carried, changed and not carried.
        later: what stands against starting the job: files that are not there, and the like.
        warnings: what the rules of `plan` say.
    """

    text: str
    notes: tuple[Note, ...]
    later: tuple[Problem, ...]
    warnings: tuple[str, ...]


def finish(draft: Draft, source: str, path: Path, environ: Mapping[str, str]) -> Imported:
    """Write a draft as the text of a job file.

    Args:
        draft: with `cluster` and most of `train`.
        source: what it was made from, for the head of the file.
        path: where the job file will stand; its folder is where relative paths start.
        environ: the environment, for the secrets that the job passes on.

    Raises:
        JobFileError: what was imported makes no job file.
    """
    from orchestrator.init.document import review  # noqa: PLC0415 - the models are slow to import
    from orchestrator.job.compose import compose  # noqa: PLC0415

    folder = path.absolute().parent
    _complete(draft, folder)
    take_ds_argument(draft)
    comments = {"": _HEAD.format(source=" ".join(source.split())[:200]), **draft.comments}
    text = compose(_relative(draft.data, folder), comments)
    found = review(text, folder, str(path), environ)
    if found.wrong:
        raise JobFileError(*(_at_source(problem, draft.notes) for problem in found.wrong))
    return Imported(text, tuple(draft.notes), found.later, found.warnings)


def _at_source(problem: Problem, notes: Sequence[Note]) -> Problem:
    """Return a problem of a job file that is not written with the place that its value came from."""
    key = problem.where.rpartition(": ")[2]
    source = next((note.source for note in notes if note.text.startswith(f"{key}: ")), None)
    return problem if source is None else replace(problem, where=source)


def _complete(draft: Draft, folder: Path) -> None:
    """Fill in what every job file needs."""
    if draft.get("train.script") is None and draft.get("train.module") is None:
        what = "for you to correct: no script is named (--script says it)"
        draft.change("script", what, "train.script", "train.py")
        draft.comments["train.script"] = "no script was named: write yours"
    if draft.get("train.workdir") is None and draft.cwd != folder:
        draft.put("train.workdir", draft.cwd)
    _shorten_script(draft)
    if draft.get("name") is None:
        script = draft.get("train.script") or str(draft.get("train.module")).rpartition(".")[2]
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(str(script)).stem).strip("-.")
        draft.put("name", stem or "job")


def _shorten_script(draft: Draft) -> None:
    """Let a script below the workdir start there, as `$PWD/train.py` of a shell script does not."""
    script = draft.get("train.script")
    workdir = str(draft.get("train.workdir") or draft.cwd)
    if isinstance(script, str) and script.startswith(f"{workdir}/"):
        draft.put("train.script", script.removeprefix(f"{workdir}/"))


def take_ds_argument(draft: Draft) -> None:
    """Make `--deepspeed ds.json` of the script deepspeed.config_file, and its value `{ds_config}`."""
    args = draft.get("train.args") or []
    for number, word in enumerate(args):
        option, equals, value = word.partition("=")
        if option not in _HF_OPTIONS:
            continue
        at = number if equals else number + 1
        given = value if equals else (args[at] if at < len(args) else "")
        if given.endswith(".json") and ("{" in given or "$" in given or "`" in given):
            what = "is known only when it runs: name a file as deepspeed.config_file, and {ds_config} here"
            draft.drop(f"argument {option} {given}", what)
        elif given.endswith(".json") and _set_ds_file(draft, option, given):
            args[at] = f"{option}={DS_CONFIG}" if equals else DS_CONFIG


def _set_ds_file(draft: Draft, option: str, given: str) -> bool:
    """Take a file that the script is told for the job's; return whether it is."""
    source, path = f"argument {option} {given}", _from_workdir(draft, given)
    known = draft.get("deepspeed.config_file")
    if known is not None and Path(draft.cwd, known) != Path(draft.cwd, path):
        draft.drop(source, f"is handed over as it is: deepspeed.config_file is {known} already")
        return False
    if known is None:
        draft.carry(source, "deepspeed.config_file", path)
        if option == "--deepspeed":
            draft.change(source, "the option is HF Trainer's, which fills auto", "deepspeed.auto", "script")
    draft.change(source, f"the script is told {DS_CONFIG}, the file that is made from it for the run")
    return True


def _from_workdir(draft: Draft, text: str) -> str | Path:
    workdir = draft.get("train.workdir")
    if text.startswith(("/", "~")):
        return text
    if isinstance(workdir, str):
        return os.path.normpath(f"{workdir}/{text}")
    return Path(draft.cwd, workdir or ".") / text


def _relative(value: Any, folder: Path) -> Any:
    """Return data with every absolute `Path` as text, relative to the job file's folder."""
    if isinstance(value, dict):
        return {key: _relative(inner, folder) for key, inner in value.items()}
    if isinstance(value, list):
        return [_relative(inner, folder) for inner in value]
    return os.path.relpath(value, folder) if isinstance(value, PurePath) else value
