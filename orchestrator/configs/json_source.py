"""Strict JSON files: syntax errors with line and column, and no key twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath = tuple[str, ...]
_STRING = r'"(?:[^"\\]|\\.)*"'
_TOKEN = re.compile(rf"(?P<key>{_STRING})(?=\s*:)|{_STRING}|[{{}}\[\]]")
_LIST = "[]"


def read_json_object(path: Path, key: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file.
        key: key path of the job file that names it, for errors about the file itself.

    Raises:
        JobFileError: no such file, not JSON, no object, a key twice, NaN or Infinity.
    """
    text = _text(path, key)
    try:
        value = json.loads(text, object_pairs_hook=_Pairs(path, text), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        fix = "correct it; JSON has no comments and no comma after the last entry"
        raise JobFileError(Problem(f"not JSON: {error.msg}", where, fix=fix)) from None
    except RecursionError:
        raise JobFileError(Problem("is nested too deeply", str(path), fix="write fewer brackets")) from None
    except ValueError as error:
        where = f"{path}:{_line_of_word(str(error.args[-1]), text)}"
        raise JobFileError(Problem(str(error.args[0]), where, fix="write a finite number")) from None
    if not isinstance(value, dict):
        raise JobFileError(Problem("expected one JSON object", str(path), fix="start the file with {"))
    return value


def key_lines(file: Path) -> dict[KeyPath, int]:
    """Return the line of every key of a JSON file, by the keys that lead there; none if it cannot be read.

    Args:
        file: a file that `read_json_object` took.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        return dict(_keys(text))
    except (OSError, ValueError, IndexError):
        return {}


def place_of(file: str, path: KeyPath) -> str:
    """Return `file:line` of a key of a JSON file, or the file's path where it has no such key."""
    line = key_lines(Path(file)).get(path)
    return f"{file}:{line}" if line else file


def _keys(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield the path of each key of JSON text, and its line; keys of objects in lists are left out."""
    above: list[str] = []  # the key of every object or list that is open; the outermost has none
    key, line, end = "", 1, 0
    for token in _TOKEN.finditer(text):
        line, end = line + text.count("\n", end, token.start()), token.start()
        if token[0] in ("{", "["):
            above.append(key if token[0] == "{" else _LIST)
        elif token[0] in ("}", "]"):
            above.pop()
        elif token["key"]:
            key = json.loads(token["key"])
            if _LIST not in above:
                yield (*above[1:], key), line


def _places(key: str, text: str) -> list[int]:
    """Return the lines of a key in JSON text; an escaped spelling is not found."""
    pattern = re.escape(json.dumps(key)) + r"\s*:"
    return [text.count("\n", 0, match.start()) + 1 for match in re.finditer(pattern, text)]


def _text(path: Path, key: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise JobFileError(Problem(what, key, str(path), "give the path of a file you may read")) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
        raise JobFileError(Problem(what, str(path), fix="save the file as UTF-8")) from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON", word)


def _line_of_word(word: str, text: str) -> int:
    """Return the line of the first NaN or Infinity that stands for a value."""
    match = re.search(rf"[:\[,]\s*({re.escape(word)})\b", text)
    return text.count("\n", 0, match.start(1)) + 1 if match else 1


class _Pairs:
    """Makes a dict of an object's pairs and refuses a key that comes twice."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise JobFileError(
                Problem(f"the key {twice!r} twice", self._where(twice), fix="keep one of them")
            )
        return found

    def _where(self, key: str) -> str:
        """Return the line of the key's last place in the file; an escaped spelling has none."""
        places = _places(key, self.text)
        return f"{self.path}:{places[-1]}" if places else str(self.path)
