"""Setting single values of a YAML document, as `--set a.b=c` asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import yaml

from orchestrator.errors import JobFileError, Problem
from orchestrator.job.yaml_source import KeyPath, Origin, YamlSource, compose, dotted, read_node

_TAG = "tag:yaml.org,2002:"


def apply_setting(source: YamlSource, setting: str) -> YamlSource:
    """Return the document with one value set; sections that are missing on the way are made.

    Args:
        source: the document; it stays as it is.
        setting: `a.b=value`, where value is YAML; a number in the path is the index of a list.

    Raises:
        JobFileError: no `=`, a value that is not YAML, or a path through something that has no keys.
    """
    origin = f"--set {setting}"
    keys, equals, value = setting.partition("=")
    path: KeyPath = tuple(keys.strip().split("."))
    if not equals or "" in path:
        raise JobFileError(Problem("not of the form a.b=value", origin, fix="name a key path and a value"))
    try:
        node = compose(value, origin) or _null()
    except JobFileError as error:
        raise JobFileError(*(replace(problem, where=origin) for problem in error.problems)) from None
    _stamp(node, Origin(origin))
    return read_node(_Edit(origin, path, node).apply(source.root, path), source.name)


def _stamp(node: yaml.Node, origin: Origin) -> None:
    """Mark a node, and all under it, as coming from `origin`."""
    if node.start_mark is origin:
        return
    node.start_mark = origin
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else [child]:
                _stamp(part, origin)


def _null() -> yaml.ScalarNode:
    return yaml.ScalarNode(_TAG + "null", "null")


@dataclass(frozen=True)
class _Edit:
    """One value on its way to its path. Nodes may be shared by aliases, so changed ones are copies."""

    origin: str
    path: KeyPath
    value: yaml.Node

    def apply(self, node: yaml.Node, rest: KeyPath) -> yaml.Node:
        """Return `node`, or a copy of it, with the value at `rest`."""
        if not rest:
            return self.value
        if node.tag == _TAG + "null":
            node = yaml.MappingNode(_TAG + "map", [], Origin(self.origin))
        if isinstance(node, yaml.MappingNode):
            return _copy(node, self._entries(node, rest))
        if isinstance(node, yaml.SequenceNode):
            return _copy(node, self._items(node, rest))
        raise self._refusal(
            "holds one value, no keys", rest, "set the value itself, without what comes after it"
        )

    def _entries(self, node: yaml.MappingNode, rest: KeyPath) -> list[Any]:
        entries = list(node.value)
        for i, (key, child) in enumerate(entries):
            if isinstance(key, yaml.ScalarNode) and key.value == rest[0]:
                entries[i] = (key, self.apply(child, rest[1:]))
                return entries
        key = yaml.ScalarNode(_TAG + "str", rest[0], Origin(self.origin))
        return [*entries, (key, self.apply(_merged_child(node, rest[0]) or _null(), rest[1:]))]

    def _items(self, node: yaml.SequenceNode, rest: KeyPath) -> list[Any]:
        items = list(node.value)
        index = int(rest[0]) if str(rest[0]).isdecimal() else -1
        if not 0 <= index <= len(items):
            what = f"the list has the indexes 0 to {len(items) - 1}" if items else "the list is empty"
            raise self._refusal(what, rest, f"use one of them, {len(items)} to append, or set the whole list")
        if index == len(items):
            items.append(_null())
        items[index] = self.apply(items[index], rest[1:])
        return items

    def _refusal(self, what: str, rest: KeyPath, fix: str) -> JobFileError:
        reached = self.path[: len(self.path) - len(rest)]
        return JobFileError(Problem(what, f"{self.origin}: {dotted(reached)}", fix=fix))


def _copy(node: yaml.CollectionNode, children: list[Any]) -> yaml.Node:
    return type(node)(node.tag, children, node.start_mark, node.end_mark, flow_style=node.flow_style)


def _merged_child(node: yaml.MappingNode, name: str | int) -> yaml.Node | None:
    """Return the node that `<<` brings in under `name`."""
    for key, child in node.value:
        if key.tag != _TAG + "merge":
            continue
        for part in child.value if isinstance(child, yaml.SequenceNode) else [child]:
            for inner, found in part.value if isinstance(part, yaml.MappingNode) else []:
                if inner.value == name and isinstance(found, yaml.Node):
                    return found
    return None
