"""Setting values in the text of a YAML document, so that comments, order and quotes stay as they are.

`yaml_edit.apply_setting` says what the document has to mean afterwards; what was written is read again and
compared with that, so a text that cannot be edited in place is refused, and never written wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from orchestrator.errors import JobFileError, Problem
from orchestrator.job.yaml_edit import apply_setting
from orchestrator.job.yaml_source import KeyPath, YamlSource, compose, dotted, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEP = 2  # spaces that a new section is indented by


def set_values(text: str, name: str, values: Mapping[str, str]) -> str:
    """Return the text of a document with some of its values set.

    Args:
        text: the YAML document.
        name: what to call it in errors, usually its path.
        values: key paths with dots, such as `deepspeed.hpz`, and their values as YAML writes them.

    Raises:
        JobFileError: the document is no YAML, or a value cannot be set in place (it is an alias, or its
            section is written in a way that has no room for it).
    """
    wanted = parse_yaml(text, name)
    for key, value in values.items():
        wanted = apply_setting(wanted, f"{key}={value}")
        text = _Text(text, name).set(tuple(key.split(".")), value)
    if _reads_as(text, name, wanted):
        return text
    fix = "set them by hand: " + "; ".join(f"{key}: {value}" for key, value in values.items())
    raise JobFileError(Problem("these values cannot be set without rewriting the file", name, fix=fix))


def _reads_as(text: str, name: str, wanted: YamlSource) -> bool:
    try:
        return bool(parse_yaml(text, name).data == wanted.data)
    except JobFileError:
        return False


@dataclass(frozen=True)
class _Text:
    """A document's text, in which one value is set."""

    text: str
    name: str

    def set(self, path: KeyPath, value: str) -> str:
        """Return the text with the value at `path`."""
        node = compose(self.text, self.name)
        for depth, key in enumerate(path):
            child = _child(node, key)
            if child is None or _is_empty(child, path[depth + 1 :]):
                return self._insert(node, child, path[depth:], value)
            node = child
        assert node is not None  # noqa: S101 - a path has a key
        start, end = self._at(node.start_mark), self._at(node.end_mark)
        return self.text[:start] + (" " if start == end else "") + value + self.text[end:]

    def _at(self, mark: yaml.Mark) -> int:
        """Return the place of a mark in the text (libyaml's own index leaves the byte order mark out)."""
        lines = self.text.split("\n")
        return sum(len(line) + 1 for line in lines[: mark.line]) + int(mark.column)

    def _insert(self, section: yaml.Node | None, empty: yaml.Node | None, path: KeyPath, value: str) -> str:
        """Return the text with a key that is not there yet, at the end of its section."""
        if not isinstance(section, yaml.MappingNode):
            what = "holds no keys, so none can be added"
            raise JobFileError(Problem(what, f"{self.name}: {dotted(path)}", fix="write it as key: value"))
        if section.flow_style:
            end = self._at(section.end_mark) - 1
            comma = ", " if section.value else ""
            return self.text[:end] + comma + _flow(path, value) + self.text[end:]
        if empty is not None:  # `deepspeed:` and nothing behind it
            at, indent = self._line_end(empty.end_mark), section.value[0][0].start_mark.column + _STEP
            return self._lines(at, _block(path[1:], value, indent))
        last = _last_leaf(section)
        return self._lines(
            self._line_end(last.end_mark), _block(path, value, section.value[0][0].start_mark.column)
        )

    def _line_end(self, mark: yaml.Mark) -> int:
        """Return where the line after a value begins."""
        at = self._at(mark)
        if mark.column == 0 and at > 0:  # a block text ends where the next line begins
            return at
        newline = self.text.find("\n", at)
        return len(self.text) if newline < 0 else newline + 1

    def _lines(self, at: int, lines: str) -> str:
        before = self.text[:at]
        return before + ("" if before.endswith("\n") or not before else "\n") + lines + self.text[at:]


def _child(node: yaml.Node | None, key: str | int) -> yaml.Node | None:
    for name, child in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value == key:
            return child  # type: ignore[no-any-return]
    return None


def _is_empty(node: yaml.Node, rest: KeyPath) -> bool:
    """Tell whether a section that has to hold `rest` is written as a key without a value."""
    return bool(rest) and isinstance(node, yaml.ScalarNode) and node.value == ""


def _last_leaf(node: yaml.Node) -> yaml.Node:
    """Return the last scalar, or collection in brackets, of a section: its end is where its text ends."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node


def _block(path: KeyPath, value: str, indent: int) -> str:
    """Return the lines of a key and its value, with the sections that lead to it."""
    lines = [" " * (indent + _STEP * depth) + f"{key}:" for depth, key in enumerate(path)]
    return "\n".join(lines) + f" {value}\n"


def _flow(path: KeyPath, value: str) -> str:
    return f"{path[0]}: {value}" if len(path) == 1 else f"{path[0]}: {{{_flow(path[1:], value)}}}"
