r"""Env files: one `KEY=VALUE` a line.

    # a comment; blank lines are skipped
    export NCCL_DEBUG=INFO         `export ` is allowed, a comment may follow after a space
    TOKENIZERS_PARALLELISM='false' single quotes: as it stands, also over lines
    GREETING="two\nlines"          double quotes: \n \t \" \\ \$ mean the characters, also over lines

Nothing is expanded: `$HOME` stays `$HOME`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from pathlib import Path

_START = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[^=\s]*)(?P<gap>[ \t]*)(?P<equals>=?)[ \t]*")
_QUOTED = re.compile(r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)\"""", re.DOTALL)
_REST = re.compile(r"[ \t]*(?:[ \t]#.*)?(?:\n|\Z)")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$", "\n": ""}


def read_env_file(path: Path) -> dict[str, str]:
    """Read an env file.

    Args:
        path: the file.

    Returns:
        The variables in the order of the file; a name that comes twice has its last value.

    Raises:
        JobFileError: no such file, or a line that is not `KEY=VALUE`; all such lines at once.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise JobFileError(Problem(what, "train.env_file", str(path), "give a file you may read")) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
        raise JobFileError(Problem(what, str(path), fix="save the file as UTF-8")) from None
    return parse_env(text, str(path))


def parse_env(text: str, name: str) -> dict[str, str]:
    """Return the variables of an env file's text; `name` is what errors call the file.

    Raises:
        JobFileError: a line that is not `KEY=VALUE`; all such lines at once.
    """
    variables: dict[str, str] = {}
    problems: list[Problem] = []
    text = text.replace("\r\n", "\n")
    position = 0
    while position < len(text):
        start, end = position, _line_end(text, position)
        position = end
        if text[start:end].strip() and not text[start:end].lstrip().startswith("#"):
            try:
                key, value, position = _assignment(text, start, end)
                variables[key] = value
            except ValueError as error:
                what, fix = error.args
                problems.append(Problem(what, f"{name}:{text.count(chr(10), 0, start) + 1}", fix=fix))
    if problems:
        raise JobFileError(*problems)
    return variables


def _line_end(text: str, position: int) -> int:
    found = text.find("\n", position)
    return len(text) if found < 0 else found + 1


def _assignment(text: str, start: int, end: int) -> tuple[str, str, int]:
    """Return name, value and where the next line starts; ValueError carries what is wrong and the fix.

    Values are never put into errors: they may be secrets.
    """
    match = _START.match(text, start, end)
    if match is None or not match["equals"]:
        raise ValueError("no KEY=VALUE", "write KEY=VALUE, or # before a comment")
    if match["gap"] or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", match["name"]):
        raise ValueError(
            f"no name of a variable: {match['name']!r}", "use letters, digits and _, no space before ="
        )
    if "\0" in text[start:end]:
        raise ValueError("holds a NUL character", "remove it")
    if text[match.end() : match.end() + 1] not in ("'", '"'):
        return match["name"], _bare(text[match.end() : end]), end
    quoted = _QUOTED.match(text, match.end())
    if quoted is None:
        raise ValueError("a quote that is not closed", "close it, or put the value into the other quotes")
    rest = _REST.match(text, quoted.end())
    if rest is None:
        raise ValueError("something after the closing quote", "put the whole value into one pair of quotes")
    return match["name"], _unquoted(quoted), rest.end()


def _bare(value: str) -> str:
    return re.split(r"(?:^|[ \t])#", value.rstrip("\n"), maxsplit=1)[0].strip()


def _unquoted(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return match["single"]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), match["double"], flags=re.DOTALL)
