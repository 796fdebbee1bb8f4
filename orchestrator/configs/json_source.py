"""Strict JSON files: syntax errors with line and column, and no key twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import JobFileError, Problem


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
    except ValueError as error:
        raise JobFileError(Problem(str(error), str(path), fix="write a number")) from None
    if not isinstance(value, dict):
        raise JobFileError(Problem("expected one JSON object", str(path), fix="start the file with {"))
    return value


def place_of(file: str, key: str) -> str:
    """Return `file:line` of a key that stands once in a JSON file, else the file's path.

    Args:
        file: path of a file that has been read.
        key: the key, of whatever object.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return file
    places = _places(key, text)
    return f"{file}:{places[0]}" if len(places) == 1 else file


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
    raise ValueError(f"{word} is not JSON")


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
