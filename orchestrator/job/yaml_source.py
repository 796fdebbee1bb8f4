"""YAML with positions: what a file says, and on which line it says it.

Reading differs from plain PyYAML where that would surprise: a key that stands twice is an error, `5e8` is a
number (YAML 1.2), `1:30:00` and dates are text, keys are always text (`on:` is the key "on"), and the text of
every scalar is kept, so that `1e-4` can reach a program as it was typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import yaml

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

KeyPath = tuple[str | int, ...]

_LIMIT = 100_000  # values in one file; more means that aliases multiply
_TAG = "tag:yaml.org,2002:"
_NUMBERS = {
    "int": (r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)\Z", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf|\.nan)\Z",
        "-+0123456789.",
    ),
}


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's table of what plain words mean, with our numbers and without dates."""
    dropped = {_TAG + kind for kind in ("int", "float", "timestamp")}
    table = {
        first: [(tag, pattern) for tag, pattern in rows if tag not in dropped]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for kind, (pattern, starts) in _NUMBERS.items():
        for first in starts:
            table.setdefault(first, []).append((_TAG + kind, re.compile(pattern)))
    return table


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


class Origin(yaml.Mark):
    """The mark of a node that does not come from the file: what to call the place it comes from."""

    text: str

    def __init__(self, text: str) -> None:
        super().__init__(text, 0, 0, 0, None, 0)
        self.text = text


@dataclass(frozen=True)
class YamlSource:
    """One YAML document and where each of its values stands.

    Attributes:
        name: what the file is called in errors.
        root: the top node.
        data: the document as dict, list and scalars; keys are text.
        places: for each key path, where it stands: `file:line`, or what its `Origin` says.
        texts: for each scalar that is not null, its text as typed.
    """

    name: str
    root: yaml.Node
    data: Any = None
    places: dict[KeyPath, str] = field(default_factory=dict)
    texts: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        """Return where `path` stands, or the nearest value around it that stands in the file."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def where(self, path: KeyPath) -> str:
        """Return `file:line: key.path` for an error."""
        return f"{self.place(path)}: {dotted(path)}" if path else self.place(path)

    def dump(self) -> str:
        """Return the document as YAML text (without the comments of the file)."""
        text: str = yaml.serialize(self.root, Dumper=_Dumper, allow_unicode=True, width=4096)
        return text


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it: `train.args.0`."""
    return ".".join(str(key) for key in path)


def parse_yaml(text: str, name: str) -> YamlSource:
    """Read one YAML document.

    Args:
        text: the document.
        name: what to call it in errors, usually its path.

    Raises:
        JobFileError: not YAML, empty, a key twice, a tag or a key that is not plain; all of them at once
            where they can be told.
    """
    root = compose(text, name)
    if root is None:
        raise JobFileError(Problem("is empty", name, fix="start with cluster: and train:"))
    return read_node(root, name)


def compose(text: str, name: str) -> yaml.Node | None:
    """Return the top node of a YAML document, None when there is none.

    Raises:
        JobFileError: a syntax error, with its line and column.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        raise JobFileError(_bad_character(text, error, name)) from None
    except yaml.MarkedYAMLError as error:
        raise JobFileError(_syntax_problem(error, name)) from None
    return node


def _bad_character(text: str, error: yaml.reader.ReaderError, name: str) -> Problem:
    line = text.count("\n", 0, error.position) + 1
    return Problem(
        "a character that YAML does not allow", f"{name}:{line}", ascii(chr(error.character)), "remove it"
    )


def _syntax_problem(error: yaml.MarkedYAMLError, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    context = error.context
    if context and error.context_mark and mark and error.context_mark.line != mark.line:
        context += f" that starts on line {error.context_mark.line + 1}"
    what = ", ".join(part for part in (context, error.problem) if part)
    fix = "put quotes around a value with : # [ { % @ or ` in it; check the indentation"
    if "\\t" in what or "cannot start any token" in what:
        fix = "indent with spaces, not tabs; put quotes around a value that starts with % @ or `"
    if "single document" in what:
        fix = "keep one document: remove the line --- and what does not belong to the job"
    return Problem(f"not YAML: {what}", where, fix=fix)


def read_node(root: yaml.Node, name: str) -> YamlSource:
    """Return the document under `root`.

    Raises:
        JobFileError: a key twice, a tag or a key that is not plain, an alias that holds itself.
    """
    source = YamlSource(name, root)
    reader = _Reader(name)
    data = reader.value(source.root, (), ())
    if reader.problems:
        raise JobFileError(*dict.fromkeys(reader.problems))  # a merged section is read twice
    return replace(source, data=data, places=reader.places, texts=reader.texts)


class _Reader:
    """Walks the nodes once and notes values, places, texts and problems."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[KeyPath, str] = {}
        self.texts: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: KeyPath, parents: tuple[int, ...]) -> Any:
        """Return what `node` says; `parents` are the nodes around it, to see an alias that holds itself."""
        self.places.setdefault(path, self._place(node))
        if id(node) in parents or len(self.places) > _LIMIT:
            what = "an alias that holds itself" if id(node) in parents else f"more than {_LIMIT} values"
            raise JobFileError(*self.problems, Problem(what, self.places[path], fix="write the values out"))
        parents = (*parents, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            found: dict[str, Any] = {}
            for key, place, child in self._entries(node, path):
                self.places[(*path, key)] = place
                found[key] = self.value(child, (*path, key), parents)
            return found
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(child, (*path, i), parents) for i, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kinds = ("null", "bool", "int", "float", "str")
        if not isinstance(node, yaml.ScalarNode) or node.tag not in {_TAG + kind for kind in kinds}:
            self._problem(
                f"a tag that job files do not have: {node.tag.replace(_TAG, '!!')}", path, "remove the tag"
            )
            return None
        if node.tag != _TAG + "null":
            self.texts[path] = node.value
        try:
            return self._scalars.construct_object(node)
        except ValueError:
            self._problem("not a value of its tag", path, "remove the tag", node.value)
            return None

    def _entries(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, str, yaml.Node]]:
        seen: dict[str, str] = {}
        merged: list[yaml.Node] = []
        for key_node, child in node.value:
            place = self._place(child if isinstance(child.start_mark, Origin) else key_node)
            if key_node.tag == _TAG + "merge":
                merged += child.value if isinstance(child, yaml.SequenceNode) else [child]
            elif not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("a key that is no plain text", place, fix="write key: value"))
            elif key_node.value in seen:
                where = f"{place}: {dotted((*path, key_node.value))}"
                self.problems.append(
                    Problem(f"a key twice, first at {seen[key_node.value]}", where, fix="keep one")
                )
            else:
                seen[key_node.value] = place
                yield key_node.value, place, child
        yield from self._merged(merged, path, set(seen))

    def _merged(
        self, nodes: list[yaml.Node], path: KeyPath, seen: set[str]
    ) -> Iterator[tuple[str, str, yaml.Node]]:
        for node in nodes:
            if not isinstance(node, yaml.MappingNode):
                place = self._place(node)
                self.problems.append(
                    Problem("<< merges keys, this is no section", place, fix="merge an alias")
                )
                continue
            for key, place, child in self._entries(node, path):
                if key not in seen:
                    seen.add(key)
                    yield key, place, child

    def _place(self, node: yaml.Node) -> str:
        mark = node.start_mark
        return mark.text if isinstance(mark, Origin) else f"{self.name}:{mark.line + 1}"

    def _problem(self, what: str, path: KeyPath, fix: str, value: str | None = None) -> None:
        self.problems.append(Problem(what, f"{self.places[path]}: {dotted(path)}", value, fix))
