"""The script of a command line: what runs, with which arguments."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.importing.draft import Draft

_PYTHON = re.compile(r"python(\d+(\.\d+)*)?\Z")
_PYTHON_FLAGS = re.compile(r"-[bBdEhiIOPqsSuvVx]+\Z")


def is_python(word: str) -> bool:
    """Return whether a word is the name or path of a Python."""
    return _PYTHON.match(PurePosixPath(word).name) is not None


def python_words(words: Sequence[str]) -> tuple[str, bool, list[str]]:
    """Split what stands behind `python` into flags, whether it is a module, and the rest.

    Returns:
        The flags as one text, whether `-m` was there, and the script or module with its arguments.
    """
    rest, flags = list(words), []
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        takes_value = rest[0] in ("-W", "-X")
        if not takes_value and not _PYTHON_FLAGS.match(rest[0]):
            break
        flags += rest[: 2 if takes_value else 1]
        del rest[: 2 if takes_value else 1]
    is_module = bool(rest) and rest[0] == "-m"
    return " ".join(flags), is_module, rest[1:] if is_module else rest


def set_program(draft: Draft, words: Sequence[str], source: str, *, module: bool, no_python: bool) -> None:
    """Write train.script or train.module, and train.args.

    Args:
        draft: gets them.
        words: the script or module and its arguments.
        source: where the command stands.
        module: the first word is a module.
        no_python: the first word is a program that is started as it is.

    Raises:
        JobFileError: it is no Python script.
    """
    if no_python:
        module, words = _own_python(draft, words, source)
    if not words:
        raise JobFileError(Problem("names no script", source, fix="add the script and its arguments"))
    key = "train.module" if module else "train.script"
    draft.carry(source, key, words[0])
    if words[1:]:
        draft.carry(source, "train.args", list(words[1:]))


def _own_python(draft: Draft, words: Sequence[str], source: str) -> tuple[bool, Sequence[str]]:
    if not words or not is_python(words[0]):
        what = "--no_python starts a program that is no Python script, which a job file cannot say"
        value = words[0] if words else None
        raise JobFileError(Problem(what, source, value, "start the script itself, with python"))
    set_python(draft, words[0], source)
    _, module, rest = python_words(words[1:])
    return module, rest


def set_python(draft: Draft, word: str, source: str) -> None:
    """Write train.python where the command names one by its path or version."""
    if "/" in word:
        draft.carry(source, "train.python", draft.path(word))
    elif draft.get("train.setup") or word not in ("python", "python3"):
        draft.carry(source, "train.python", word)


def set_python_beside(draft: Draft, tool: str, source: str) -> None:
    """Write train.python for a tool named by its path: the Python beside it."""
    if "/" in tool:
        python = os.path.join(os.path.dirname(tool), "python")  # noqa: PTH118, PTH120 - keeps ./ and ~
        draft.change(source, f"beside {tool}", "train.python", draft.path(python))
