"""A job file as text: keys in the order of the models, comments, and quotes where they matter."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.errors import JobFileError
from orchestrator.job.model import JobSpec
from orchestrator.job.problems import submodel
from orchestrator.job.yaml_source import compose as read
from orchestrator.job.yaml_source import dotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from orchestrator.job.yaml_source import KeyPath

_WIDTH = 110  # columns of a line, a comment behind its value included
_STR = "tag:yaml.org,2002:str"
_PLAIN = re.compile(r"-{0,2}[\w./~$^+](?:[\w./~$^+@%=:()*;-]| (?=[\w./~$^+(-]))*\Z")
_OTHER_READERS = re.compile(r"(?:[yn]|[-+]?0o[0-7]+|[-.]+)\Z", re.IGNORECASE)
"""Words that are no text to some YAML reader, though they are to PyYAML (YAML 1.2, YAML 1.1's y and n)."""
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def compose(
    data: Mapping[str, Any], comments: Mapping[str, str] | None = None, *, explain: bool = False
) -> str:
    """Return the text of a job file.

    What `load_job` reads from it is `data` again, letter for letter: a text that some YAML reader would take
    for a number, a boolean or null is in quotes.

    Args:
        data: the document: sections as mappings; lists; text, paths, numbers, booleans and None.
        comments: what to say at a key path such as `deepspeed.hpz` or `train.args.0`: behind the value where
            it fits on the line, else above it. What is said at "" stands at the head of the file.
        explain: whether a key that has no comment gets its field's description as one.
    """
    writer = _Writer(comments or {}, explain)
    head = _above(writer.comments.get("", ""), 0)
    blocks = [head] if head else []
    alone = True  # whether the next entry starts a paragraph of its own
    for key, value in _ordered(data, JobSpec):
        lines = writer.entry((key,), value, JobSpec)
        if alone or isinstance(value, Mapping):
            blocks.append(lines)
        else:
            blocks[-1] += lines
        alone = isinstance(value, Mapping)
    return "\n\n".join("\n".join(lines) for lines in blocks) + "\n"


@dataclass(frozen=True)
class _Writer:
    comments: Mapping[str, str]
    explain: bool

    def entry(self, path: KeyPath, value: Any, model: type[BaseModel] | None) -> list[str]:
        """Return the lines of one key: its comment, its value, and everything below."""
        field = model.model_fields.get(str(path[-1])) if model else None
        comment = self.comments.get(dotted(path), (field and field.description) if self.explain else None)
        inner = submodel(field.annotation) if field else None
        return self._with_comment(f"{scalar(str(path[-1]))}:", comment, path, self._value(path, value, inner))

    def _value(self, path: KeyPath, value: Any, model: type[BaseModel] | None) -> list[str]:
        """Return a value's lines: what stands behind the key, then lines indented relative to the key."""
        if isinstance(value, Mapping) and value:
            entries = (self.entry((*path, key), inner, model) for key, inner in _ordered(value, model))
            return ["", *(f"  {line}" if line else line for lines in entries for line in lines)]
        if _is_list(value) and value:
            return self._list(path, value)
        if _is_long(value):
            return _block(value)
        return [flow(value)]

    def _list(self, path: KeyPath, value: Sequence[Any]) -> list[str]:
        said = any(dotted((*path, number)) in self.comments for number in range(len(value)))
        nested = any(isinstance(item, Mapping) or _is_list(item) or _is_long(item) for item in value)
        if not said and not nested and 2 * len(path) + len(flow(value)) + len(str(path[-1])) <= _WIDTH:
            return [flow(value)]
        lines = [""]
        for number, item in enumerate(value):
            where = (*path, number)
            lines += [
                f"  {line}" if line else line
                for line in self._with_comment(
                    "-",
                    self.comments.get(dotted(where)),
                    where,
                    _block(item) if _is_long(item) else [flow(item)],
                )
            ]
        return lines

    @staticmethod
    def _with_comment(head: str, comment: str | None, path: KeyPath, lines: list[str]) -> list[str]:
        """Put a comment behind the first line where it fits, else above it.

        Args:
            head: the key, or the dash of a list.
            comment: what to say; None for nothing.
            path: of the value; each key of it is one level of indentation.
            lines: of the value, the first of which follows `head`.
        """
        depth = 2 * (len(path) - 1)
        first = f"{head} {lines[0]}".rstrip()
        if not comment:
            return [first, *lines[1:]]
        behind = f"{first} # {comment}"
        if depth + len(behind) <= _WIDTH and comment.isprintable():
            return [behind, *lines[1:]]
        return [*_above(comment, depth), first, *lines[1:]]


def _ordered(data: Mapping[str, Any], model: type[BaseModel] | None) -> list[tuple[str, Any]]:
    """Return the entries in the order of the model's fields; keys that it does not have come last."""
    places = {name: number for number, name in enumerate(model.model_fields)} if model else {}
    return sorted(data.items(), key=lambda entry: places.get(str(entry[0]), len(places)))


def _above(comment: str, depth: int) -> list[str]:
    """Return a comment as lines of their own; its own line breaks stay."""
    width = max(40, _WIDTH - depth - 2)
    found = []
    for line in comment.splitlines():
        shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
        found += textwrap.wrap(shown, width, break_long_words=False, break_on_hyphens=False) or [""]
        if shown.startswith(" ") and len(shown) <= width:
            found[-1] = shown.rstrip()  # a command that stands out from the text
    return [f"# {line}".rstrip() for line in found]


def flow(value: Any) -> str:
    """Return a value on one line, as it can stand behind a key or in a list."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(str(key))}: {flow(inner)}" for key, inner in value.items()) + "}"
    if _is_list(value):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """Return one value as YAML: plain where every reader takes it for what it is, else in quotes.

    Raises:
        TypeError: it is no text, path, number, boolean or None.
    """
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    if value is None or isinstance(value, bool | int | float):
        dumped: str = yaml.safe_dump(value, default_flow_style=True, width=4096)
        return dumped.partition("\n")[0]
    raise TypeError(f"a job file cannot hold {type(value).__name__}: {value!r}")


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_plain(text: str) -> bool:
    if not _PLAIN.match(text) or text.endswith(":") or ": " in text or _OTHER_READERS.match(text):
        return False
    try:
        node = read(text, "")
        return node is not None and node.tag == _STR and yaml.safe_load(text) == text  # not 1:30, a date, yes
    except (JobFileError, yaml.YAMLError, ValueError):
        return False


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or _escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    """Return a character as it can stand in double quotes; U+2028 and the like would end the line."""
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and _is_block(value)


def _is_block(text: str) -> bool:
    """Return whether a text of several lines can be written line by line, which reads best."""
    lines = text.removesuffix("\n").split("\n")
    return (
        len(lines) > 1
        and lines[0][:1].strip() != ""
        and lines[-1].strip() != ""
        and all(line.isprintable() and not line.endswith(" ") for line in lines)
    )


def _block(text: str) -> list[str]:
    mark = "|" if text.endswith("\n") else "|-"
    return [mark, *(f"  {line}" if line else "" for line in text.removesuffix("\n").split("\n"))]
