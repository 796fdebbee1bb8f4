"""Leave bad hosts out of a job file: the filter, and the text with it; comments and layout stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from orchestrator.errors import FilterError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orchestrator.job import ClusterSpec

_SPECIAL = "@:,"


def filter_without(cluster: ClusterSpec, bad: Sequence[str]) -> tuple[str, str]:
    """Return the key of section `cluster` that leaves hosts out, and its new value.

    Where the job file includes hosts, they are taken out of that filter: only one of the two may be given.

    Raises:
        FilterError: a name that DeepSpeed's filters cannot say, or nothing would be left.
    """
    unsaid = [name for name in bad if any(letter in name for letter in _SPECIAL)]
    if unsaid:
        fix = "take it out of the hostfile"
        raise FilterError(Problem("a filter cannot name this host", "cluster.exclude", unsaid[0], fix))
    if cluster.include:
        kept = [spec for spec in cluster.include.split("@") if spec.partition(":")[0] not in bad]
        if not kept:
            raise FilterError(Problem("no host would be left", "cluster.include", cluster.include))
        return "include", "@".join(kept)
    given = (cluster.exclude or "").split("@")
    others = [spec for spec in given if spec and spec.partition(":")[0] not in bad]
    return "exclude", "@".join([*others, *bad])


def with_value(text: str, key: str, value: str) -> str | None:
    """Return a job file's text with `cluster.KEY` set; None where the text cannot be edited in place.

    Args:
        text: YAML.
        key: such as exclude.
        value: what it is set to.
    """
    root = yaml.compose(text)
    cluster = _child(root, "cluster")
    if not isinstance(cluster, yaml.MappingNode) or not cluster.value:
        return None
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    old = _child(cluster, key)
    if old is not None:
        if old.start_mark.index >= old.end_mark.index:
            quoted = " " + quoted  # `exclude:` with nothing behind it
        return text[: old.start_mark.index] + quoted + text[old.end_mark.index :]
    return _inserted(text, cluster, f"{key}: {quoted}")


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs: Iterable[tuple[yaml.Node, yaml.Node]] = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), None)


def _inserted(text: str, cluster: yaml.MappingNode, entry: str) -> str | None:
    """Put an entry into a mapping: before its first key, or behind its last value of one line."""
    first = cluster.value[0][0].start_mark
    if cluster.flow_style:
        return text[: first.index] + entry + ", " + text[first.index :]
    lines = [(k, v) for k, v in cluster.value if v.start_mark.line == v.end_mark.line == k.start_mark.line]
    if not lines:
        return None
    at = text.find("\n", lines[-1][1].end_mark.index)
    head, tail = (text, "") if at < 0 else (text[:at], text[at:])
    return f"{head}\n{' ' * first.column}{entry}{tail}"
