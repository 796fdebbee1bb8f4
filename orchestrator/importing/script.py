"""A shell script, such as one for sbatch, as a job file."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.command import (
    Context,
    Start,
    find_start,
    map_start,
)
from orchestrator.importing.shell import Command, read_commands
from orchestrator.importing.shell_scope import Scope
from orchestrator.importing.slurm_options import read_directives
from orchestrator.importing.slurm_section import write_slurm
from orchestrator.importing.variables import OF_THE_LAUNCHER, set_variable

if TYPE_CHECKING:
    from orchestrator.importing.draft import Draft

_KEYWORDS = frozenset(("then", "else", "do", "{", "!", "time"))
_CONDITIONS = frozenset(
    ("if", "elif", "while", "until", "[", "[[", "test", "case", "for", "select", "function")
)
_ENDS = frozenset(("fi", "done", "esac", "}", ")"))
_SETUP = frozenset(
    ("module", "ml", "source", ".", "conda", "mamba", "micromamba", "spack", "ulimit", "umask", "mkdir")
)
_SILENT = frozenset(("set", "shopt", "wait", "true", ":", "exit", "unset", "readonly", "local"))
_PRINTS = frozenset(
    ("echo", "printf", "date", "hostname", "nvidia-smi", "env", "printenv", "which", "whoami", "pwd")
)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)
_RUN_ID = re.compile(r"\$\{?SLURM_(?:ARRAY_)?JOB_ID\}?")


@dataclass
class _Found:
    """A command that starts ranks: where it stands, and what it starts."""

    line: int
    start: Start
    redirects: list[str] = field(default_factory=list)


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
    reader = _Reader(draft, str(path), _variables(draft, context, request.variables()))
    for command in read_commands(text, str(path)):
        reader.take(command)
    found = reader.only_start()
    in_slurm = bool(request.options) or found.start.step is not None or "#SBATCH" in text
    where = f"{path}:{found.line}"
    if in_slurm:
        if found.start.step is not None:
            for name in ("nodes", "ntasks", "ntasks-per-node"):  # of the step; the job's own count otherwise
                given = dict(found.start.step).get(name)
                if given is not None and "$" not in given and name not in request.options:
                    request.add(name, given, where)
            step = [pair for pair in found.start.step if _is_for_step(pair)]
            found.start = replace(found.start, step=step)
        draft.put("cluster.backend", "slurm")
        draft.put("cluster.nodes", request.nodes)
        nodes = request.nodes
        map_start(found.start, draft, where, replace(context, request=request, alone="#SBATCH" not in text))
        if draft.get("cluster.nodes") == nodes:
            draft.data["cluster"].pop("nodes")
        write_slurm(draft, request)
    else:
        map_start(found.start, draft, where, context)
    for redirect in found.redirects:
        draft.drop(f"{where}: {redirect}", "every host and rank has its log in the run directory")
    _run_ids(draft)
    _unknown_words(draft, where)


def _is_for_step(pair: tuple[str, str]) -> bool:
    name, value = pair
    return "$" not in value and name not in ("nodes", "ntasks", "ntasks-per-node", "export", "nodelist")


def _variables(draft: Draft, context: Context, of_slurm: dict[str, str]) -> dict[str, str]:
    known = {name: context.environ[name] for name in ("HOME", "USER") if name in context.environ}
    return {**known, "PWD": str(draft.cwd), "SLURM_SUBMIT_DIR": str(draft.cwd), **of_slurm}


class _Reader:
    """Takes one command after the other."""

    def __init__(self, draft: Draft, name: str, variables: dict[str, str]) -> None:
        self.draft, self.name = draft, name
        self.scope = Scope(variables)
        self.starts: list[_Found] = []
        self.pythons: list[_Found] = []
        self.inside: list[str] = []
        self.piped = False

    def only_start(self) -> _Found:
        """Return the one command that starts ranks."""
        found = self.starts or self.pythons
        if len(found) == 1:
            return found[0]
        if not found:
            what = "starts no ranks: there is no deepspeed, torchrun, accelerate launch or python in it"
            fix = "write the command itself behind --: orchestrate import -- torchrun …"
            raise JobFileError(Problem(what, self.name, fix=fix))
        lines = ", ".join(str(each.line) for each in found)
        what = f"starts ranks {len(found)} times, on lines {lines}"
        fix = "write the command you want behind --, or leave the others out"
        raise JobFileError(Problem(what, self.name, fix=fix))

    def take(self, command: Command) -> None:
        """Take in one command."""
        for name, words in command.arrays.items():
            self.scope.set(name, [text for word in words for text in self.scope.fields(word)])
        piped, self.piped = self.piped, command.after in ("|", "|&")
        if not command.words:
            return
        raw = [self._plain(word) for word in command.words]
        while raw and raw[0] in _KEYWORDS:
            command = replace(command, words=command.words[1:])
            raw = raw[1:]
        if not raw or raw[0] in _ENDS:
            return
        if piped and raw[0] in ("tee", "cat", "ts", "grep", "sed", "awk"):
            self._drop(command, "every host and rank has its log in the run directory: orchestrate logs")
            return
        self._simple(command, raw[0])

    @staticmethod
    def _plain(word: tuple[object, ...]) -> str:
        return "".join(getattr(piece, "text", "") for piece in word)

    def _where(self, command: Command) -> str:
        return f"{self.name}:{command.line}"

    def _drop(self, command: Command, reason: str) -> None:
        shown = command.raw if len(command.raw) <= 80 else f"{command.raw[:77]}…"
        self.draft.drop(f"{self._where(command)}: {' '.join(shown.split())}", reason)

    def _simple(self, command: Command, first: str) -> None:
        if first in _CONDITIONS:
            self._drop(command, "nothing is decided here: what stands inside is taken as if it ran once")
        elif first in ("export", "declare", "typeset"):
            for word in command.words[1:]:
                self._assign(command, word, exported=True)
        elif first == "cd":
            self._cd(command)
        elif all(_ASSIGNMENT.match(self._plain(word)) for word in command.words):
            for word in command.words:
                self._assign(command, word, exported=False)
        elif first in _SETUP or (first == "eval" and "conda" in command.raw):
            self._setup(command)
        elif first not in _SILENT:
            self._start(command, first)

    def _cd(self, command: Command) -> None:
        words = self.scope.words(command)[1:]
        folder = self.scope.shown(words[0]) if words else "~"
        if "$" in folder or folder == "-":
            self._drop(command, f"{folder} is known only when it runs: set train.workdir")
            return
        before = self.draft.get("train.workdir") or self.draft.cwd
        path = self.draft.path(folder)
        if isinstance(path, str) and Path(path).is_relative_to(self.draft.cwd):
            path = Path(path)  # $SLURM_SUBMIT_DIR/x
        if isinstance(path, Path) and folder not in (".", ""):
            path = Path(before) / folder
        self.draft.carry(self._where(command), "train.workdir", path)

    def _assign(self, command: Command, word: tuple[object, ...], *, exported: bool) -> None:
        text = self.scope.text(word)  # type: ignore[arg-type]
        match = _ASSIGNMENT.match(text)
        if match is None:
            known = self.scope.variables.get(text)
            if exported and isinstance(known, str) and not text.startswith("-"):
                self._export(command, text, known)
            return
        name, value = match.groups()
        if self.scope.is_known(value) or name not in OF_THE_LAUNCHER:
            self.scope.set(name, value)
        if exported:
            self._export(command, name, value)
        elif name in OF_THE_LAUNCHER:
            self.draft.drop(f"{self._where(command)}: {name}", "is set for each rank by the launcher")

    def _export(self, command: Command, name: str, value: str) -> None:
        shown = self.scope.shown(value)
        where = self._where(command)
        if self.scope.is_known(value) or name in OF_THE_LAUNCHER:
            set_variable(self.draft, name, shown, where)
        elif re.search(r"\s", value):
            self._drop(command, "is part of a command")
        elif name == "PATH" or "$(" not in shown:
            self._add_setup(f'export {name}="{shown}"', where)
        else:
            self._drop(
                command, f"{shown} is known only when it runs: set train.env.{name}, or add it to setup"
            )

    def _setup(self, command: Command) -> None:
        words = self.scope.words(command)
        text = command.raw
        if any(name in text for name in (f"${each}" for each in self.scope.local)) or "${" in text:
            shown = [self.scope.shown(word) for word in words]
            text = " ".join(word if "$" in word else shlex.quote(word) for word in shown)
        self._add_setup(re.sub(r"\\\n\s*", " ", text), self._where(command))

    def _add_setup(self, line: str, where: str) -> None:
        self.draft.carry(where, "train.setup", [*(self.draft.get("train.setup") or []), line])
        self.draft.notes[-1] = replace(self.draft.notes[-1], text=f"train.setup: {line}")

    def _start(self, command: Command, first: str) -> None:
        words = [self.scope.shown(word) for word in self.scope.words(command)]
        start = find_start(words, self._where(command)) if words else None
        if start is not None and start.tool == "shell" and "-c" in start.words[:2]:
            self._inner(command, start)
        elif start is not None and start.tool == "python":
            ranks = self.starts if start.step is not None else self.pythons
            ranks.append(_Found(command.line, start, command.redirects))
        elif start is not None:
            self.starts.append(_Found(command.line, start, command.redirects))
        elif first in _PRINTS:
            self._drop(command, "only prints")
        else:
            self._drop(command, "add it to train.setup if every host needs it before the ranks start")

    def _inner(self, command: Command, start: Start) -> None:
        """Take in `srun bash -c '…'`: what stands in the quotes, as part of that step."""
        text = start.words[start.words.index("-c") + 1] if start.words[-1] != "-c" else ""
        before, piped = (len(self.starts), len(self.pythons)), self.piped
        for inner in read_commands(text, self.name, command.line):
            self.take(inner)
        for found in [*self.starts[before[0] :], *self.pythons[before[1] :]]:
            env = {**start.env, **found.start.env}
            found.start = replace(found.start, step=found.start.step or start.step, env=env)
            found.redirects += command.redirects
        self.piped = piped


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
        if re.search(r"\$[A-Za-z_{(]|`", word):
            what = "is handed over as it is written: no shell fills it; write the value"
            draft.drop(f"{where}: {word}", what)
