"""Read a shell script far enough to see which commands it runs, with which words.

Not a shell: nothing is run, and what stands for something else (`$X`, `$(hostname)`) is kept as it is written
for `orchestrator.importing.shell_scope`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.errors import JobFileError, Problem

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=\Z")
_REDIRECT = re.compile(r"(?:\d+|&)?(?:<<<|<<-?|>>|>\||[<>]&?)")
_DECLARES = frozenset(("declare", "typeset", "local", "export", "readonly"))
_OPERATORS = (";;", "&&", "||", "|&", ";", "&", "|", "(", ")", "\n")


@dataclass(frozen=True)
class Piece:
    """A part of a word: its text, whether quotes protect it, and whether it stands for something else."""

    text: str
    quoted: bool = False
    expands: bool = False


Word = tuple[Piece, ...]


@dataclass
class Command:
    """One simple command as it is written.

    Attributes:
        line: where it starts.
        raw: its text.
        words: without redirections; an array `NAME=(…)` is one entry of `arrays`.
        arrays: assignments of arrays.
        redirects: where its output goes or its input comes from, as written.
        after: the operator behind it.
    """

    line: int
    raw: str = ""
    words: list[Word] = field(default_factory=list)
    arrays: dict[str, list[Word]] = field(default_factory=dict)
    redirects: list[str] = field(default_factory=list)
    after: str = "\n"


def read_commands(text: str, name: str, first_line: int = 1) -> list[Command]:
    """Return the simple commands of a script in their order.

    Raises:
        JobFileError: a quote or a bracket is never closed.
    """
    return _Lexer(text.replace("\r\n", "\n"), name, first_line).commands()


class _Lexer:
    def __init__(self, text: str, name: str, first_line: int) -> None:
        self.text, self.name, self.first_line = text, name, first_line
        self.at = 0
        self.heredocs: list[str] = []

    def commands(self) -> list[Command]:
        found = []
        while self.at < len(self.text):
            command = self._command()
            if command.words or command.arrays or command.redirects or command.after == ";;":
                found.append(command)
        return found

    def _line(self, at: int) -> int:
        return self.first_line + self.text.count("\n", 0, at)

    def _command(self) -> Command:
        self._blanks()
        start = self.at
        command = Command(self._line(start))
        while self.at < len(self.text):
            operator = next((sign for sign in _OPERATORS if self.text.startswith(sign, self.at)), None)
            redirect = _REDIRECT.match(self.text, self.at)
            if redirect and not (operator in ("&&", "&") and redirect[0][:2] != "&>"):
                self._redirect(command, redirect[0])
            elif operator is not None:
                command.after = operator
                break
            else:
                self._entry(command)
            self._blanks()
        command.raw = self.text[start : self.at].strip()
        self.at += len(command.after)
        if command.after == "\n":
            self._skip_heredocs()
        return command

    def _blanks(self) -> None:
        """Pass white space, continued lines and comments."""
        while self.at < len(self.text):
            if self.text.startswith("\\\n", self.at):
                self.at += 2
            elif self.text[self.at] in " \t":
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def _redirect(self, command: Command, sign: str) -> None:
        start = self.at
        self.at += len(sign)
        self._blanks()
        target = self._word()
        command.redirects.append(self.text[start : self.at])
        if sign.endswith(("<<", "<<-")):
            self.heredocs.append("".join(piece.text for piece in target))

    def _skip_heredocs(self) -> None:
        for end in self.heredocs:
            match = re.compile(rf"^\t*{re.escape(end)}$", re.MULTILINE).search(self.text, self.at)
            self.at = len(self.text) if match is None else match.end()
        self.heredocs = []

    def _entry(self, command: Command) -> None:
        word = self._word()
        assigned = _ASSIGN.match(word[0].text) if len(word) == 1 and not word[0].quoted else None
        if assigned and self.text.startswith("(", self.at) and _may_assign(command):
            items = self._array()
            command.arrays[assigned[1]] = (
                [(Piece(f"${{{assigned[1]}[@]}}", True, True),)] if assigned[2] else []
            )
            command.arrays[assigned[1]] += items
        else:
            command.words.append(word)

    def _array(self) -> list[Word]:
        start = self.at
        self.at += 1
        items: list[Word] = []
        while True:
            self._blanks()
            if self.at >= len(self.text):
                raise self._open("(", start)
            if self.text[self.at] == ")":
                self.at += 1
                return items
            if self.text[self.at] == "\n":
                self.at += 1
            elif self.text[self.at] in ";&|":
                raise self._open("(", start)
            else:
                items.append(self._word())

    def _word(self) -> Word:
        pieces: list[Piece] = []
        while self.at < len(self.text) and self.text[self.at] not in " \t\n;&|()<>":
            if self.text.startswith("\\\n", self.at):
                self.at += 2
            else:
                pieces += self._pieces()
        if not pieces and self.at < len(self.text) and self.text[self.at] in "&<>()":
            self.at += 1  # `>&2` and the like, already read; never stand still
        return tuple(_joined(pieces))

    def _pieces(self) -> list[Piece]:
        char = self.text[self.at]
        if char == "\\":
            self.at += 2
            return [Piece(self.text[self.at - 1 : self.at], quoted=True)]
        if char == "'" or self.text.startswith("$'", self.at):
            start = self.at + (2 if char == "$" else 1)
            end = self._find("'", start, self.at)
            self.at = end + 1
            return [Piece(self.text[start:end], quoted=True)]
        if char == '"':
            return self._double()
        if char in "$`":
            return [self._expansion(quoted=False)]
        self.at += 1
        return [Piece(char)]

    def _double(self) -> list[Piece]:
        start = self.at
        self.at += 1
        pieces = [Piece("", quoted=True)]
        while True:
            if self.at >= len(self.text):
                raise self._open('"', start)
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return pieces
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ("$", "`", '"', "\\", "\n"):
                escaped = self.text[self.at + 1]
                pieces.append(Piece("" if escaped == "\n" else escaped, quoted=True))
                self.at += 2
            elif char in "$`":
                pieces.append(self._expansion(quoted=True))
            else:
                pieces.append(Piece(char, quoted=True))
                self.at += 1

    def _expansion(self, *, quoted: bool) -> Piece:
        start = self.at
        name = _NAME.match(self.text, start + 1)
        if self.text[start] == "`":
            self.at = self._find("`", start + 1, start) + 1
        elif self.text.startswith(("$(", "${"), start):
            self.at = self._closing(start + 1)
        elif name:
            self.at = name.end()
        elif self.text[start + 1 : start + 2] and self.text[start + 1] in "@*#?$!0123456789-":
            self.at += 2
        else:
            self.at += 1
            return Piece("$", quoted)
        return Piece(self.text[start : self.at], quoted, expands=True)

    def _closing(self, start: int) -> int:
        """Return the place behind the bracket that closes the one at `start`; quotes are passed over."""
        opening, at, depth = self.text[start], start, 0
        closing = {"(": ")", "{": "}"}[opening]
        while at < len(self.text):
            char = self.text[at]
            if char == "\\":
                at += 1
            elif char == "'":
                at = self._find("'", at + 1, start)
            elif char in (opening, closing):
                depth += 1 if char == opening else -1
                if depth == 0:
                    return at + 1
            at += 1
        raise self._open(opening, start)

    def _find(self, sign: str, start: int, opened: int) -> int:
        end = self.text.find(sign, start)
        if end < 0:
            raise self._open(sign, opened)
        return end

    def _open(self, sign: str, at: int) -> JobFileError:
        where = f"{self.name}:{self._line(at)}"
        return JobFileError(Problem(f"a {sign} is never closed", where, fix="close it"))


def _may_assign(command: Command) -> bool:
    """Return whether an array can follow: nothing comes before it but `declare -a` or the like."""
    return not command.words or "".join(piece.text for piece in command.words[0]) in _DECLARES


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Return pieces with neighbours of the same kind as one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last and not piece.expands and not last.expands and last.quoted == piece.quoted:
            found[-1] = Piece(last.text + piece.text, piece.quoted)
        else:
            found.append(piece)
    return found
