"""What DeepSpeed raises, in words: which key, and why."""

from __future__ import annotations

import json
import re
from typing import Any, Iterator, Mapping, Sequence

from .answer import Answer, like, one_line
from .asked import ALL, KeyPath

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text"}


def refused(
    error: Exception, config: Mapping[str, Any], trail: Sequence[KeyPath], answer: Answer
) -> Iterator[KeyPath]:
    """Note why DeepSpeed refuses a configuration; yield the paths of the keys that it refuses.

    Args:
        error: what was raised.
        config: the configuration.
        trail: the paths that DeepSpeed had touched up to then.
        answer: gets the words.
    """
    errors = getattr(error, "errors", None)
    if not callable(errors):
        tell = _tell_absent if isinstance(error, KeyError) else _tell_words
        yield tell(one_line(str(error)) or repr(error), config, trail, answer)
        return
    section = next((path[:-1] for path in reversed(trail) if path[-1] == ALL), ())
    for each in errors():  # pydantic's
        path = _full_path(config, section, each["loc"])
        _tell_field(each, path, config, answer)
        yield path


def value_at(config: Any, path: KeyPath) -> Any:
    """Return what a configuration has there, None if nothing."""
    for key in path:
        config = config.get(key) if isinstance(config, dict) else None
    return config


def has(config: Mapping[str, Any], path: KeyPath) -> bool:
    """Return whether a configuration has that key."""
    section = value_at(config, path[:-1])
    return bool(path) and isinstance(section, dict) and path[-1] in section


def field_names() -> set[str]:
    """Return the keys of all of DeepSpeed's sections that are pydantic's classes."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel  # noqa: PLC0415

    names: set[str] = set()
    for model in DeepSpeedConfigModel.__subclasses__():
        fields = getattr(model, "model_fields", None) or model.__fields__  # pydantic 2, and 1
        names |= set(fields) | {field.alias for field in fields.values() if field.alias}
    return names


def _tell_words(words: str, config: Mapping[str, Any], trail: Sequence[KeyPath], answer: Answer) -> KeyPath:
    """Note an assertion or another error of words alone; return the key that it is likely to be about."""
    last = next((path for path in reversed(trail) if has(config, path)), ())
    is_last = bool(last) and (last[-1] in words or "has been removed" in words)
    path = last if is_last else _named(words, config) or last[:1]
    if "accelerator" not in words:  # GDS off the hosts that have GPUs: not for this host to say
        what = f"{'.'.join(path) or 'the configuration'}: {words}, says DeepSpeed {answer.deepspeed}"
        answer.problem(what, "deepspeed", _shown(config, path))
    return path


def _tell_absent(words: str, config: Mapping[str, Any], trail: Sequence[KeyPath], answer: Answer) -> KeyPath:
    """Note a key that DeepSpeed takes for granted; return the section that lacks it."""
    section = trail[-1][:-1] if trail else ()
    what = f"{'.'.join(section)}: lacks {words}, says DeepSpeed {answer.deepspeed}"
    answer.problem(what, "deepspeed", _shown(config, section))
    return section


def _tell_field(each: Mapping[str, Any], path: KeyPath, config: Mapping[str, Any], answer: Answer) -> None:
    """Note one of pydantic's errors."""
    key, value = ".".join(path), _shown(config, path)
    if each["type"] == "extra_forbidden":
        close = like(path[-1], field_names())
        fix = f"did you mean {' or '.join(close)}?" if close else "remove it"
        answer.problem(f"{key} is no key of DeepSpeed {answer.deepspeed}", "deepspeed", value, fix)
        return
    kind = str(each["type"]).split("_", maxsplit=1)[0]
    fix = f"write {_KINDS[kind]}" if kind in _KINDS else ""
    what = f"{key}: {one_line(each['msg'])}, says DeepSpeed {answer.deepspeed}"
    answer.problem(what, "deepspeed", value, fix)


def _full_path(config: Mapping[str, Any], section: KeyPath, place: Sequence[Any]) -> KeyPath:
    """Return where in the configuration an error is: its place counts from the section that was loaded."""
    below = tuple(str(part) for part in place)
    return next((path for path in (section + below, below) if has(config, path)), section)


def _named(words: str, config: Mapping[str, Any]) -> KeyPath:
    """Return the longest path of the configuration whose key an error names."""
    said = set(re.findall(r"[a-z0-9]+_[a-z0-9_]+", words)) | set(re.findall(r"'(\w+)'", words))
    return max((path for path in _paths(config, ()) if path[-1] in said), key=len, default=())


def _paths(config: Mapping[str, Any], above: KeyPath) -> Iterator[KeyPath]:
    for key, value in config.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _shown(config: Mapping[str, Any], path: KeyPath) -> str | None:
    return json.dumps(value_at(config, path))[:200] if path else None
