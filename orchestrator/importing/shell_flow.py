"""Which commands of a shell script run: what `if`, `case`, `&&` and `||` make of them, without running any.

A condition is told where its words are known. Where they are not, it is taken to hold, but for a branch that
ends the script. Loops are run once.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.importing.shell import Command, Word
    from orchestrator.importing.shell_scope import Scope

TESTS = frozenset(("[", "[[", "test"))
_BEFORE_ALL = frozenset(("then", "else", "do", "{", "time"))
_PARTS = frozenset(("if", "elif", "then", "else", "fi", "case", "esac"))
_ENDS_SCRIPT = frozenset(("exit", "return"))
_NUMBERS = {
    "-eq": int.__eq__,
    "-ne": int.__ne__,
    "-lt": int.__lt__,
    "-le": int.__le__,
    "-gt": int.__gt__,
    "-ge": int.__ge__,
}


@dataclass
class _Frame:
    """An `if` or a `case` that is open.

    Attributes:
        line: where it starts.
        outer: whether it is reached.
        runs: whether the commands that come now run.
        asks: these commands are its condition, or a pattern.
        holds: what its condition came to; None where it cannot be told.
        taken: one of its branches has run.
        subject: of a case: its word; None where that is not known.
        patterns: of the branch of a case that begins.
    """

    line: int
    outer: bool
    runs: bool = False
    asks: bool = True
    holds: bool | None = True
    taken: bool = False
    is_case: bool = False
    subject: str | None = None
    patterns: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """A command on its way to the reader.

    Attributes:
        command: without the words that only hold an `if` together.
        skipped: why it does not run; "" if it does.
        asked: it is a condition; whether it holds, None where that cannot be told.
    """

    command: Command
    skipped: str = ""
    asked: tuple[bool | None] | None = None


def plain(word: Word) -> str:
    """Return a word's text, unexpanded and without its quotes."""
    return "".join(piece.text for piece in word)


class Flow:
    """Goes through commands; what it makes of one depends on the variables at that moment."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.open: list[_Frame] = []
        self.status: bool | None = True  # of the command before
        self.joined = ""  # what stands between it and this one, if && or ||

    def steps(self, commands: Sequence[Command]) -> Iterator[Step]:
        """Yield each command with words, and whether it runs."""
        ends = set(_ends_script(commands))
        for index, command in enumerate(commands):
            step = self._step(command, ends_script=index in ends)
            if step is not None:
                yield step
            self.joined = command.after if command.after in ("&&", "||") else ""
            if self.open and self.open[-1].is_case and command.after == ";;":
                self.open[-1].asks, self.open[-1].patterns = True, []

    def _step(self, command: Command, *, ends_script: bool) -> Step | None:
        command = self._peeled(command, ends_script=ends_script)
        frame = self.open[-1] if self.open else None
        if not command.words and not command.arrays:
            return None
        if frame is not None and frame.asks and frame.is_case:
            self._pattern(frame, command)
            return None
        if frame is not None and frame.asks:
            return self._condition(frame, command)
        return self._plain(frame, command)

    def _plain(self, frame: _Frame | None, command: Command) -> Step:
        first = plain(command.words[0]) if command.words else ""
        if frame is not None and not frame.runs:
            return Step(command, f"the condition on line {frame.line} does not hold, as far as is known here")
        if (self.joined == "&&" and self.status is False) or (self.joined == "||" and self.status is True):
            return Step(command, "runs only if what stands before it fails" if self.status else _SUCCEEDS)
        negated, inner = first == "!", command
        if negated:
            inner = replace(command, words=command.words[1:])
        test = bool(inner.words) and plain(inner.words[0]) in TESTS
        self.status = self._told(inner, negated=negated) if test else True
        return Step(inner, asked=(self.status,)) if test else Step(inner)

    def _condition(self, frame: _Frame, command: Command) -> Step:
        negated = plain(command.words[0]) == "!" if command.words else False
        inner = replace(command, words=command.words[1:]) if negated else command
        told = self._told(inner, negated=negated)
        before, frame.holds = frame.holds, told
        if self.joined == "&&":
            frame.holds = False if False in (before, told) else None if None in (before, told) else True
        elif self.joined == "||":
            frame.holds = True if True in (before, told) else None if None in (before, told) else False
        return Step(inner, "" if frame.outer else f"line {frame.line} is not reached", asked=(told,))

    def _peeled(self, command: Command, *, ends_script: bool) -> Command:
        """Return a command without the words of `if` and `case` at its beginning, which are obeyed."""
        while command.words:
            first = plain(command.words[0])
            frame = self.open[-1] if self.open else None
            if frame is not None and frame.is_case and frame.asks and first != "esac":
                return command  # a pattern may be called anything
            if first not in _BEFORE_ALL and first not in _PARTS:
                return command
            if first in _PARTS:
                self._part(first, command, ends_script=ends_script)
            command = replace(command, words=command.words[3 if first == "case" else 1 :])  # case WORD in
            if first in ("then", "else", "do"):
                command = replace(command, raw=command.raw.removeprefix(first).lstrip())
        return command

    def _part(self, word: str, command: Command, *, ends_script: bool) -> None:
        if word in ("if", "case"):
            outer = all(frame.runs for frame in self.open)
            self.open.append(_Frame(command.line, outer, is_case=word == "case"))
            self.open[-1].subject = self._known(command.words[1]) if word == "case" else None
        elif self.open and word in ("fi", "esac"):
            self.open.pop()
            self.status = True
        elif self.open:
            frame = self.open[-1]
            frame.asks = word == "elif"
            if word == "elif":
                frame.runs, frame.line = False, command.line
            else:
                holds = frame.holds is True or (frame.holds is None and not ends_script)
                frame.runs = frame.outer and not frame.taken and (word == "else" or holds)
                frame.taken = frame.taken or frame.runs
        self.joined = ""

    def _pattern(self, frame: _Frame, command: Command) -> None:
        frame.patterns += [plain(word) for word in command.words]
        if command.after != ")":
            return
        subject = frame.subject
        fits = any(each == "*" or _fits(subject, each) for each in frame.patterns)
        frame.asks, frame.runs = False, frame.outer and not frame.taken and fits
        frame.taken = frame.taken or frame.runs

    def _known(self, word: Word) -> str | None:
        """Return the text of a word; None where it is not known."""
        if any(piece.expands and piece.text.strip("${}") in ("#", "@", "*", "?") for piece in word):
            return None  # the script's own words: nobody knows them here
        text = self.scope.text(word)
        return text if self.scope.is_known(text) else None

    def _told(self, command: Command, *, negated: bool) -> bool | None:
        held = _holds([self._known(word) for word in command.words])
        return held if held is None else held != negated


_SUCCEEDS = "runs only if what stands before it holds, which it does not"


def _fits(subject: str | None, pattern: str) -> bool:
    return subject is not None and fnmatch.fnmatchcase(subject, pattern)


def _holds(words: list[str | None]) -> bool | None:
    """Return whether a command succeeds, if it is a test; None where that cannot be told."""
    if words in (["true"], ["false"]):
        return words == ["true"]
    if not words or words[0] not in TESTS:
        return None
    closing = {"[": ["]"], "[[": ["]]"], "test": []}[str(words[0])]
    inner = words[1 : len(words) - len(closing)]
    if words[len(words) - len(closing) :] != closing or None in inner:
        return None
    negated = inner[:1] == ["!"]
    found = _asked([str(word) for word in inner[negated:]], globs=words[0] == "[[")
    return None if found is None else found != negated


def _asked(words: Sequence[str], *, globs: bool) -> bool | None:
    """Return what a test says; files are not looked at: the hosts' may be others."""
    if len(words) == 1:
        return words[0] != ""
    if len(words) == 2 and words[0] in ("-z", "-n"):
        return (words[1] == "") == (words[0] == "-z")
    if len(words) != 3:
        return None
    left, sign, right = words
    if sign in _NUMBERS and all(each.lstrip("-").isdecimal() for each in (left, right)):
        return _NUMBERS[sign](int(left), int(right))
    same = fnmatch.fnmatchcase(left, right) if globs else left == right
    return same == (sign != "!=") if sign in ("=", "==", "!=") else None


def _ends_script(commands: Sequence[Command]) -> Iterator[int]:
    """Yield the index of each `then` whose branch, at its own level, ends the script."""
    open_at: list[int | None] = []
    for index, command in enumerate(commands):
        for first in map(plain, command.words):
            if first in ("if", "case"):
                open_at.append(None)
            elif first in ("fi", "esac") and open_at:
                open_at.pop()
            elif first in ("then", "else", "elif") and open_at:
                open_at[-1] = index if first == "then" else None
            elif first in _ENDS_SCRIPT and open_at and open_at[-1] is not None:
                yield open_at[-1]
            if first not in _BEFORE_ALL and first not in _PARTS:
                break
