"""The variables of a shell script: what its words become, as far as that can be known without running it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.importing.shell import read_commands

if TYPE_CHECKING:
    from orchestrator.importing.shell import Command, Piece, Word

_FIRST = 0xE000  # of Unicode's private use area: one character for each unknown expansion
_BRACED = re.compile(r"(\d+|[A-Za-z_][A-Za-z0-9_]*)(\[[@*]\])?(?:(:?[-=+])(.*))?\Z", re.DOTALL)
_OWN = r'dirname (?:-- )?"?\$\{?(?:0|BASH_SOURCE(?:\[0\])?)\}?"?'
_OWN_FOLDER = re.compile(rf'(?:{_OWN}|cd (?:-- )?"?\$\( ?{_OWN} ?\)"? (?:[&>/0-9a-z ]*)?&& ?pwd(?: -P)?)\Z')
_PWD = ("pwd", "pwd -P", "pwd -L")
_GIVEN = ("$@", "$*", "${@}", "${*}")
_ARITHMETIC = re.compile(r"[\d\s+*/()%-]+\Z")


class Scope:
    """The variables of a script, and the expansions whose value nobody knows before it runs.

    Attributes:
        variables: a text, or the texts of an array.
        local: names that the script itself has set.
        folder: of the script; None where its own name does not tell, as under sbatch, which runs a copy.
        given: whether the script uses the words it is given itself; there are none.
    """

    def __init__(self, variables: dict[str, str], folder: str | None = None) -> None:
        self.variables: dict[str, str | list[str]] = dict(variables)
        self.local: set[str] = set()
        self.folder = folder
        self.given = False
        self._unknown: list[str] = []

    def set(self, name: str, value: str | list[str]) -> None:
        """Set a variable; what is unknown in it stays so."""
        self.variables[name] = value
        self.local.add(name)

    def fields(self, word: Word) -> list[str]:
        """Return the words that a word becomes; encoded, see `shown`."""
        found: list[str] = []
        current: str | None = None
        for piece in word:
            values = self._values(piece) if piece.expands else [piece.text]
            if piece.expands and not piece.quoted:
                values = [part for value in values for part in value.split()]
                if not values:
                    continue
            for number, value in enumerate(values):
                if number:
                    found.append(current or "")
                    current = value
                else:
                    current = (current or "") + value
        if current == "" and not found and _may_vanish(word):
            return []  # "${A[@]}" of an empty array is no word at all
        return found if current is None else [*found, current]

    def text(self, word: Word) -> str:
        """Return the one text that a word becomes where nothing is split, as in an assignment."""
        return "".join(" ".join(self._values(p)) if p.expands else p.text for p in word)

    def words(self, command: Command) -> list[str]:
        """Return the words of a command after expansion, encoded."""
        return [text for word in command.words for text in self.fields(word)]

    def shown(self, text: str) -> str:
        """Return a text with what is unknown as it was written."""
        return "".join(self._unknown[ord(c) - _FIRST] if self._is_mark(c) else c for c in text)

    def is_known(self, text: str) -> bool:
        """Return whether nothing of a text is unknown."""
        return not any(self._is_mark(char) for char in text)

    def _is_mark(self, char: str) -> bool:
        return _FIRST <= ord(char) < _FIRST + len(self._unknown)

    def _mark(self, raw: str) -> str:
        if raw not in self._unknown:
            self._unknown.append(raw)
        return chr(_FIRST + self._unknown.index(raw))

    def _values(self, piece: Piece) -> list[str]:
        raw = piece.text
        if raw.startswith("$((") and raw.endswith("))"):
            return [self._arithmetic(raw)]
        if raw.startswith(("$(", "`")):
            return [self._output(raw)]
        if raw in (*_GIVEN, "$#"):
            self.given = True
            return ["0"] if raw == "$#" else []
        inner = raw[2:-1] if raw.startswith("${") else raw[1:]
        match = _BRACED.match(inner)
        return [self._mark(raw)] if match is None else self._variable(raw, match, quoted=piece.quoted)

    def _output(self, raw: str) -> str:
        """Return what a command prints, where that is known."""
        inner = " ".join(raw.removeprefix("$(").removesuffix(")").strip("`").split())
        here = self.variables.get("PWD")
        if inner in _PWD and isinstance(here, str):
            return here
        if self.folder is not None and _OWN_FOLDER.match(inner):
            return self.folder
        return self._mark(raw)

    def _variable(self, raw: str, match: re.Match[str], *, quoted: bool) -> list[str]:
        name, every, operator, other = match.groups()
        value = self.variables.get(name)
        if operator in ("-", ":-", "=", ":="):
            if value is None or (value == "" and ":" in operator):
                found = self._inner(other)
                if "=" in operator:
                    self.set(name, found)
                return [found]
        elif operator is not None:
            return [self._inner(other)] if value else []
        if value is None:
            return [self._mark(raw)]
        if isinstance(value, list):
            joined = every == "[*]" and quoted
            return [" ".join(value)] if joined else value if every else value[:1]
        return [value]

    def _inner(self, text: str) -> str:
        word = read_commands(text, "", 1)
        return " ".join(self.text(each) for command in word for each in command.words)

    def _arithmetic(self, raw: str) -> str:
        def value(match: re.Match[str]) -> str:
            found = self.variables.get(match[1])
            return found if isinstance(found, str) else match[0]

        text = re.sub(r"\$?\{?([A-Za-z_][A-Za-z0-9_]*)\}?", value, raw[3:-2])
        if not _ARITHMETIC.match(text) or "**" in text:
            return self._mark(raw)
        try:
            return str(int(_calculate(text)))
        except (ValueError, ZeroDivisionError, SyntaxError):
            return self._mark(raw)


def _may_vanish(word: Word) -> bool:
    every = any(piece.expands and (piece.text in ("$@", "${@}") or "[@]" in piece.text) for piece in word)
    return every and not any(piece.text for piece in word if not piece.expands)


def _calculate(text: str) -> int:
    """Return what a sum of whole numbers gives; division drops the remainder."""
    import ast  # noqa: PLC0415 - rarely needed
    import operator  # noqa: PLC0415

    signs = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.floordiv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
    }

    def walk(node: ast.AST) -> int:
        if isinstance(node, ast.Expression):
            return walk(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in signs:
            return int(signs[type(node.op)](walk(node.left), walk(node.right)))
        raise ValueError(text)

    return walk(ast.parse(text.strip(), mode="eval"))
