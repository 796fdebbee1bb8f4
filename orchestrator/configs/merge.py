"""Putting fields and overrides into a DeepSpeed configuration, and telling later what came from where."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.configs.json_source import place_of
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.configs.fields import Wish

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Origins:
    """Where the values of a configuration come from.

    Attributes:
        wishes: what the fields of the job file ask for.
        overrides: what is merged last.
        file: path of the DeepSpeed file; "" without one.
    """

    wishes: Sequence[Wish]
    overrides: Mapping[str, Any]
    file: str

    def where(self, path: KeyPath) -> str:
        """Return where to change a value: a key of the job file, or the DeepSpeed file and its line."""
        value: Any = self.overrides
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return ".".join(("deepspeed.overrides", *path))
        asked = [wish.where for wish in self.wishes if wish.path == path]
        if asked:
            return asked[0]
        return place_of(self.file, path) if self.file else "deepspeed"


def fill(config: dict[str, Any], wish: Wish, name: str) -> Iterator[Problem]:
    """Put a field's value into the configuration; yield a problem where the file says something else.

    Args:
        config: the configuration, which is changed.
        wish: the field.
        name: path of the file the configuration comes from, for the problem.
    """
    *sections, key = wish.path
    section: Any = config
    for step in sections:
        if section.get(step) in (None, "auto"):
            section[step] = {}
        section = section[step]
        if not isinstance(section, dict):
            yield Problem(
                f"{step} in {name} is no object", wish.where, json.dumps(section), "write it as an object"
            )
            return
    found = section.get(key)
    if found in (None, "auto"):
        section[key] = copy.deepcopy(wish.value)
    elif found != wish.value:
        here, there = json.dumps(wish.said or wish.value), json.dumps(found)
        what = f"says {here}, but {'.'.join(wish.path)} in {name} says {there}"
        yield Problem(what, wish.where, fix='remove one of them, or write "auto" in the file')


def merge(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Merge `overrides` into `config`: objects key by key, everything else as a whole."""
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = copy.deepcopy(value)


def contradicted(wishes: Sequence[Wish], overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each field of which `overrides` says something else: DeepSpeed sees that alone."""
    for wish in wishes:
        value: Any = overrides
        for key in wish.path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None and value != wish.value:
            here = ".".join(("deepspeed.overrides", *wish.path))
            what = f"does nothing: {here} says {json.dumps(value, default=str)}, and overrides go last"
            yield Problem(
                what, wish.where, json.dumps(wish.said or wish.value, default=str), "remove one of them"
            )


def not_json(config: dict[str, Any], origins: Origins) -> Iterator[Problem]:
    """Take out each number that YAML has and JSON has not; yield a problem for it."""
    for path, value in list(leaves(config)):
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            what = "inf and nan cannot be written as JSON"
            yield Problem(what, origins.where(path), str(value), "write a finite number")
            del section_at(config, path)[path[-1]]


def leaves(config: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every value that is no object, with its path."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def section_at(config: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """Return the object that holds the last key of a path that is there."""
    for key in path[:-1]:
        config = config[key]
    return config
