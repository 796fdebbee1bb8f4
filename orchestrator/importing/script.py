"""A shell script, such as one for sbatch, as a job file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.importing.command import Context, map_start
from orchestrator.importing.script_reader import Reader
from orchestrator.importing.shell import read_commands
from orchestrator.importing.shell_scope import Scope
from orchestrator.importing.slurm_options import read_directives
from orchestrator.importing.slurm_section import write_slurm

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.importing.draft import Draft
    from orchestrator.importing.script_reader import Found
    from orchestrator.importing.slurm_options import Request

_SIZES = ("nodes", "ntasks", "ntasks-per-node")
_NOT_OF_THE_STEP = (*_SIZES, "export", "nodelist", "jobid")
_RUN_ID = re.compile(r"\$\{?SLURM_(?:ARRAY_)?JOB_?ID\}?")
_BY_SHELL = re.compile(r"\$[A-Za-z0-9_{(@*]|`")


def map_script(text: str, path: Path, draft: Draft, context: Context) -> None:
    """Write into a draft what a shell script does.

    Args:
        text: of the script.
        path: of the script, for notes.
        draft: gets the job.
        context: see there; its request is made here.

    Raises:
        JobFileError: the script starts no ranks, or does so more than once, or says what no job file can.
    """
    request = read_directives(text, str(path))
    is_batch = "#SBATCH" in text
    folder = None if is_batch else str(path.absolute().parent)
    scope = Scope(_variables(draft, context, request.variables()), folder)
    reader = Reader(draft, str(path), scope)
    reader.run(read_commands(text, str(path)))
    found = reader.only_start()
    where = f"{path}:{found.line}"
    if is_batch or request.options or found.start.step is not None:
        _map_in_slurm(found, draft, where, replace(context, request=request, alone=not is_batch))
    else:
        map_start(found.start, draft, where, context)
    for redirect in found.redirects:
        draft.drop(f"{where}: {redirect}", "every host and rank has its log in the run directory")
    if scope.given:
        what = "stands for words that the script itself is given, none here: add them to train.args"
        draft.drop(f'{where}: "$@"', what)
    _run_ids(draft)
    _unknown_words(draft, where)


def _map_in_slurm(found: Found, draft: Draft, where: str, context: Context) -> None:
    request = context.request
    assert request is not None  # noqa: S101 - for mypy: only map_script calls this
    if found.start.step is not None:
        _take_sizes(request, dict(found.start.step), where)
        step = [(n, v) for n, v in found.start.step if "$" not in v and n not in _NOT_OF_THE_STEP]
        found.start = replace(found.start, step=step)
    nodes = request.nodes
    draft.put("cluster.backend", "slurm")
    draft.put("cluster.nodes", nodes)
    map_start(found.start, draft, where, context)
    if draft.get("cluster.nodes") == nodes:
        draft.data["cluster"].pop("nodes")  # write_slurm says where it comes from
    write_slurm(draft, request)


def _take_sizes(request: Request, step: dict[str, str], where: str) -> None:
    """Take in the sizes of the step where the job itself does not say them."""
    for name in _SIZES:
        if name not in request.options and "$" not in step.get(name, "$"):
            request.add(name, step[name], where)


def _variables(draft: Draft, context: Context, of_slurm: dict[str, str]) -> dict[str, str]:
    known = {name: context.environ[name] for name in ("HOME", "USER") if name in context.environ}
    return {**known, "PWD": str(draft.cwd), "SLURM_SUBMIT_DIR": str(draft.cwd), **of_slurm}


def _run_ids(draft: Draft) -> None:
    """Replace the id of Slurm's job in arguments by that of the run."""
    args = draft.get("train.args") or []
    for number, word in enumerate(args):
        if _RUN_ID.search(word):
            args[number] = _RUN_ID.sub("{run_id}", word)
            draft.change(f"argument {word}", "{run_id} stands for the run in place of Slurm's job id")


def _unknown_words(draft: Draft, where: str) -> None:
    """Name the arguments that only a shell could fill: nothing expands `$` in train.args."""
    words = [draft.get("train.script") or "", *(draft.get("train.args") or [])]
    for word in words:
        if _BY_SHELL.search(word):
            what = "is handed over as it is written: no shell fills it; write the value"
            draft.drop(f"{where}: {word}", what)
