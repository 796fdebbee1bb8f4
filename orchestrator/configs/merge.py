"""Putting fields and overrides into a DeepSpeed configuration."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.configs.fields import Wish


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


def not_json(overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for numbers that YAML has and JSON has not."""
    try:
        json.dumps(overrides, allow_nan=False)
    except ValueError:
        yield Problem(
            "inf and nan cannot be written as JSON", "deepspeed.overrides", fix="write a finite number"
        )


def leaves(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that is no object, with its path."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def section_at(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the object that holds the last key of a path that is there."""
    for key in path[:-1]:
        config = config[key]
    return config
