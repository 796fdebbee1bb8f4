"""A shell script, command by command: variables, folders, setup, and the command that starts ranks."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.importing.command import Start, find_start
from orchestrator.importing.shell import read_commands
from orchestrator.importing.shell_flow import TESTS, Flow, plain
from orchestrator.importing.variables import OF_THE_LAUNCHER, set_variable

if TYPE_CHECKING:
    from orchestrator.importing.draft import Draft
    from orchestrator.importing.shell import Command, Word
    from orchestrator.importing.shell_scope import Scope

_LOOPS = frozenset(("while", "until", "for", "select", "function"))
_ENDS = frozenset(("done", "}", ")"))
_UNTOLD = "cannot be told here, and is taken to hold, unless the script then ends"
_SETUP = frozenset(
    ("module", "ml", "source", ".", "conda", "mamba", "micromamba", "spack", "ulimit", "umask", "mkdir")
)
_DECLARES = frozenset(("export", "declare", "typeset", "readonly", "local"))
_SILENT = frozenset(("set", "shopt", "wait", "true", "exit", "return", "trap", "sleep", "clear"))
_PRINTS = frozenset(
    ("echo", "printf", "date", "hostname", "nvidia-smi", "env", "printenv", "which", "whoami", "pwd")
)
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)\Z", re.DOTALL)


@dataclass
class Found:
    """A command that starts ranks: where it stands, and what it starts."""

    line: int
    start: Start
    redirects: list[str] = field(default_factory=list)


class Reader:
    """Takes one command after the other."""

    def __init__(self, draft: Draft, name: str, scope: Scope) -> None:
        self.draft, self.name, self.scope = draft, name, scope
        self.starts: list[Found] = []
        self.pythons: list[Found] = []
        self.piped = False

    def only_start(self) -> Found:
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

    def run(self, commands: list[Command]) -> None:
        """Take in the commands that run, as far as that can be told, and name the others."""
        for step in Flow(self.scope).steps(commands):
            command = step.command
            if step.asked is not None and not step.skipped:
                if self._is_start(command):  # `if ! srun …; then`: to ask is to run it
                    self.take(command)
                elif step.asked == (None,):
                    self._drop(command, _UNTOLD)
            elif not step.skipped:
                self.take(command)
            elif command.words and plain(command.words[0]) not in (*_SILENT, *_PRINTS, *_ENDS):
                self._drop(command, step.skipped)

    def _is_start(self, command: Command) -> bool:
        first = plain(command.words[0]) if command.words else ""
        if first in TESTS:
            return False
        words = [self.scope.shown(word) for word in self.scope.words(command)]
        return bool(words) and find_start(words, self._where(command)) is not None

    def take(self, command: Command) -> None:
        """Take in one command."""
        for name, words in command.arrays.items():
            self.scope.set(name, [text for word in words for text in self.scope.fields(word)])
        piped, self.piped = self.piped, command.after in ("|", "|&")
        if not command.words:
            return
        first = plain(command.words[0])
        if first in _ENDS:
            return
        if piped and first in ("tee", "cat", "ts", "grep", "sed", "awk"):
            self._drop(command, "every host and rank has its log in the run directory: orchestrate logs")
            return
        self._simple(command, first)

    def _where(self, command: Command) -> str:
        return f"{self.name}:{command.line}"

    def _drop(self, command: Command, reason: str) -> None:
        shown = command.raw if len(command.raw) <= 80 else f"{command.raw[:77]}…"
        self.draft.drop(f"{self._where(command)}: {' '.join(shown.split())}", reason)

    def _simple(self, command: Command, first: str) -> None:
        if first in _LOOPS:
            self._drop(command, "nothing is repeated here: what stands inside is taken as if it ran once")
        elif first in _DECLARES:
            exported = first == "export" or "-x" in map(plain, command.words)
            for word in command.words[1:]:
                self._assign(command, word, exported=exported)
        elif first in ("cd", "unset", ":"):
            {"cd": self._cd, "unset": self._unset, ":": self.scope.words}[first](command)
        elif all(_ASSIGNMENT.match(plain(word)) for word in command.words):
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
            self.scope.variables.pop("PWD", None)
            return
        before = self.draft.get("train.workdir") or self.draft.cwd
        path = self.draft.path(folder)
        if isinstance(path, str) and Path(path).is_relative_to(self.draft.cwd):
            path = Path(path)  # $SLURM_SUBMIT_DIR/x
        if isinstance(path, Path) and folder not in (".", ""):
            path = Path(before) / folder
        self.draft.carry(self._where(command), "train.workdir", path)
        self.scope.variables["PWD"] = str(path)

    def _unset(self, command: Command) -> None:
        env = self.draft.get("train.env") or {}
        for name in self.scope.words(command)[1:]:
            self.scope.variables.pop(name, None)
            env.pop(name, None)

    def _assign(self, command: Command, word: Word, *, exported: bool) -> None:
        text = self.scope.text(word)
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
            ranks.append(Found(command.line, start, command.redirects))
        elif start is not None:
            self.starts.append(Found(command.line, start, command.redirects))
        elif first in _PRINTS:
            self._drop(command, "only prints")
        elif any(redirect.startswith("<<") for redirect in command.redirects) and first == "cat":
            self._drop(command, "the job writes no such file: write it once, before submit")
        else:
            self._drop(command, "add it to train.setup if every host needs it before the ranks start")

    def _inner(self, command: Command, start: Start) -> None:
        """Take in `srun bash -c '…'`: what stands in the quotes, as part of that step."""
        text = start.words[start.words.index("-c") + 1] if start.words[-1] != "-c" else ""
        before, piped = (len(self.starts), len(self.pythons)), self.piped
        self.run(read_commands(text, self.name, command.line))
        for found in [*self.starts[before[0] :], *self.pythons[before[1] :]]:
            env = {**start.env, **found.start.env}
            found.start = replace(found.start, step=found.start.step or start.step, env=env)
            found.redirects += command.redirects
        self.piped = piped
