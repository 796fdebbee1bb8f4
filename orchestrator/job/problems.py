"""What pydantic found wrong, as problems of the job file: place, key path, value and fix."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from orchestrator.errors import Problem
from orchestrator.job.yaml_source import KeyPath, YamlSource, dotted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import ErrorDetails

    Errors = list[ErrorDetails]

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a section of keys",
    "model": "a section of keys",
}
_SAID_OTHERWISE = {  # DeepSpeed's own words for what is one field here
    "deepspeed.bf16": "write precision: bf16",
    "deepspeed.bfloat16": "write precision: bf16",
    "deepspeed.train_batch_size": "write global_batch: …",
    "deepspeed.train_micro_batch_size_per_gpu": "write micro_batch_per_gpu: …",
    "deepspeed.zero_hpz_partition_size": "write hpz: …",
    "deepspeed.zero_optimization": "write zero_stage: …; DeepSpeed's own keys go under deepspeed.overrides",
    "deepspeed.gradient_accumulation": "write gradient_accumulation_steps: …",
    "deepspeed.zero_quantized_gradients": "write quantized_gradients: …",
    "deepspeed.zero_quantized_weights": "write quantized_weights: …",
    "deepspeed.mixed_precision": "write precision: fp32, fp16 or bf16",
    "deepspeed.deepspeed_config_file": "write config_file: …",
    "deepspeed.offload_optimizer_device": "write offload_optimizer: none, cpu or nvme",
    "deepspeed.offload_param_device": "write offload_param: none, cpu or nvme",
    "deepspeed.zero3_init_flag": "write zero3_init: true or false",
}
_LIMITS = {
    "ge": "{} or more",
    "gt": "more than {}",
    "le": "{} or less",
    "lt": "less than {}",
}


def to_problems(errors: Iterable[ErrorDetails], source: YamlSource, model: type[BaseModel]) -> list[Problem]:
    """Return one problem for each key that is wrong.

    Args:
        errors: what pydantic found, from `ValidationError.errors()`.
        source: the document, for places and values.
        model: the model of the whole document, for names that were perhaps meant.
    """
    grouped: dict[KeyPath, Errors] = {}
    for error in errors:
        grouped.setdefault(_real_path(error, source.data), []).append(error)
    return [_problem(path, found, source, model) for path, found in grouped.items()]


def _real_path(error: ErrorDetails, data: Any) -> KeyPath:
    """Return the key path in the document: pydantic appends which member of a union it had tried."""
    path: list[str | int] = []
    for key in error["loc"]:
        inside = (isinstance(data, dict) and key in data) or (isinstance(data, list) and isinstance(key, int))
        if inside:
            data = data[key]
        elif error["type"] != "missing":
            break
        path.append(key)
    return tuple(path)


def _problem(path: KeyPath, errors: Errors, source: YamlSource, model: type[BaseModel]) -> Problem:
    error, where = errors[0], source.where(path)
    if error["type"] == "extra_forbidden":
        return Problem("unknown key", where, fix=_meant(path, model))
    if error["type"] == "missing":
        return Problem("is missing", where, fix=_to_add(path, model))
    if error["type"] == "value_error":
        return Problem(str(error["ctx"]["error"]), where, _shown(path, source))
    value = _value(source.data, path)
    if value is None:
        return Problem(
            "has no value", where, fix='write a value, "" for an empty text, or "null" for that word'
        )
    words = list(dict.fromkeys(word for each in errors for word in _expected(each)))
    what = "expected " + " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return Problem(what, where, _shown(path, source), _value_fix(value, errors, words))


def _expected(error: ErrorDetails) -> Iterator[str]:
    """Yield what would have been right, each alternative once."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        yield from re.findall(r"[^\s',]+", context["expected"].replace(" or ", ", "))
    elif limits := [_LIMITS[key].format(f"{context[key]:g}") for key in _LIMITS if key in context]:
        yield from limits
    elif kind == "too_short":
        yield f"{context['min_length']} or more in the list"
    else:
        yield _KINDS.get(kind.split("_")[0], error["msg"])


def _value_fix(value: Any, errors: Errors, words: list[str]) -> str:
    kinds = {error["type"].split("_")[0] for error in errors}
    if "list" in kinds and not isinstance(value, dict):
        return f"write it as a list: [{_items(value)}]"
    if isinstance(value, str):
        if kinds & {"int", "float"} and re.fullmatch(r"[-+]?\d+(\.\d+)?", value):
            return f"remove the quotes: {value}"
        if "bool" in kinds and value.lower() in ("true", "false"):
            return f"remove the quotes: {value.lower()}"
        if "literal" in kinds and value in words and value.isdecimal():
            return f"remove the quotes: {value}"
        close = difflib.get_close_matches(value, words, 1, 0.5)
        return f"did you mean {close[0]}?" if close else ""
    return ""


def _items(value: Any) -> str:
    """Return the items of a list that was written as one text, as a shell would part them; YAML's quotes."""
    try:
        words = shlex.split(value) if isinstance(value, str) else [str(value)]
    except ValueError:  # a quote that is not closed
        return json.dumps(value, ensure_ascii=False)
    plain = re.compile(r"[\w./~+=-]*[\w/]")
    return ", ".join(
        word if plain.fullmatch(word) else json.dumps(word, ensure_ascii=False) for word in words
    )


def _shown(path: KeyPath, source: YamlSource) -> str:
    """Return the value as typed, in quotes when it is text, and never very long.

    Of an address in `notify` only the host: whoever has all of it may post there.
    """
    value = _value(source.data, path)
    if path[:1] == ("notify",) and isinstance(value, str):
        value = re.sub(r"(://[^/\s]*/)\S+", r"\1…", value)
    text = source.texts.get(path) if not isinstance(value, str) else None
    shown = text if text is not None else json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _value(data: Any, path: KeyPath) -> Any:
    for key in path:
        data = data[key]
    return data


def _meant(path: KeyPath, model: type[BaseModel]) -> str:
    """Return which key was perhaps meant: one of the section, else one of another section."""
    if dotted(path) in _SAID_OTHERWISE:
        return _SAID_OTHERWISE[dotted(path)]
    *section, key = path
    here = list(_section_model(tuple(section), model).model_fields)
    elsewhere = {name: place for name, place in _all_keys(model) if place != tuple(section)}
    more = "; DeepSpeed's own keys go under deepspeed.overrides" if "deepspeed" in section else ""
    if key in elsewhere:
        return f"{key} belongs under {dotted(elsewhere[str(key)]) or 'the top of the file'}{more}"
    if close := difflib.get_close_matches(str(key), here, 1, 0.6):
        return f"did you mean {close[0]}?{more}"
    if close := difflib.get_close_matches(str(key), elsewhere, 1, 0.8):
        return f"did you mean {dotted((*elsewhere[close[0]], close[0]))}?{more}"
    return more.removeprefix("; ") or f"remove it; the keys here are {', '.join(here)}"


def _to_add(path: KeyPath, model: type[BaseModel]) -> str:
    field = _section_model(path[:-1], model).model_fields[str(path[-1])]
    choices = [str(word) for word in get_args(field.annotation)]
    values = f"one of {', '.join(choices)}" if choices else "…"
    return f"add {path[-1]}: {values} - {field.description}"


def submodel(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field of this annotation holds, if any."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _section_model(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    for key in path:
        if not isinstance(key, int):  # a number is a place in a list of sections
            model = submodel(model.model_fields[key].annotation) or model
    return model


def _all_keys(model: type[BaseModel], path: KeyPath = ()) -> Iterator[tuple[str, KeyPath]]:
    """Yield every key of the job file and its section, outer ones last so that they win."""
    for name, field in model.model_fields.items():
        if inner := submodel(field.annotation):
            yield from _all_keys(inner, (*path, name))
    for name in model.model_fields:
        yield name, path
