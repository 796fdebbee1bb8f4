"""The types of a job file's values: durations, paths, names, lines of text.

Each type is an annotation for a pydantic model. A value that does not fit raises ValueError with a text that
says what was expected; `orchestrator.job.problems` adds where the value stands and what to write instead.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from orchestrator.job.durations import parse_duration
from orchestrator.job.quantities import parse_bandwidth, parse_bytes, parse_count, parse_count_or_none

if TYPE_CHECKING:
    from collections.abc import Mapping

BASE_DIR = "base_dir"  # key of the validation context: the folder of the job file
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


def _base_dir(info: ValidationInfo) -> Path | None:
    context: Mapping[str, Any] = info.context or {}
    return context.get(BASE_DIR)


def _anchored(path: Path, base_dir: Path | None) -> Path:
    """Return `path` with `~` expanded and, where a base folder is known, made absolute."""
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"no home folder stands behind {path.parts[0]!r}") from error
    return path if base_dir is None else base_dir / path


def _to_path(value: Any) -> Any:
    if not isinstance(value, str | os.PathLike):
        return value
    text = os.fspath(value)
    if not text or "\0" in text:
        raise ValueError("expected a path, which is not empty and holds no NUL")
    return Path(text)


def _anchor(path: Path, info: ValidationInfo) -> Path:
    return _anchored(path, _base_dir(info))


def anchored_text(value: str, info: ValidationInfo) -> str:
    """Return a path as text, `~` expanded and, where the job file's folder is known, absolute."""
    return str(_anchored(Path(value), _base_dir(info)))


def _python(value: str, info: ValidationInfo) -> str:
    """Leave a command to the PATH of each host; anchor what is a path."""
    if "/" not in value and not value.startswith("~"):
        return value
    return str(_anchored(Path(value), _base_dir(info)))


def _one_line(value: str) -> str:
    if not value.strip():
        raise ValueError("expected a text, this one is empty")
    if not value.isprintable():
        raise ValueError("expected one line of printable characters")
    return value


def _no_dash(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("a leading '-' would be read as an option")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character, which no argument and no variable can carry")
    return value


def _job_name(value: str) -> str:
    if len(value) > 100:
        raise ValueError(f"is {len(value)} characters long, the most is 100")
    return _one_line(value)


def _variable(value: str) -> str:
    if not _NAME.match(value):
        raise ValueError("is no name of an environment variable (letters, digits and _, no digit first)")
    return value


def _option_name(value: str) -> str:
    if not _OPTION.match(value):
        raise ValueError("is no name of an option (letters, digits and -, without dashes in front)")
    return value


def _one_line_or_empty(value: str) -> str:
    return _one_line(value) if value else value


def _plain_text(value: Any) -> Any:
    """Turn a number or a boolean into text, as YAML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "minLength": 1}]}),
]
_QUANTITY = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "minLength": 1}]})
ByteSize = Annotated[int, BeforeValidator(parse_bytes), _QUANTITY]
ParameterCount = Annotated[int, BeforeValidator(parse_count), _QUANTITY]
TrainedCount = Annotated[int, BeforeValidator(parse_count_or_none), _QUANTITY]
Bandwidth = Annotated[float, BeforeValidator(parse_bandwidth), _QUANTITY]
JobName = Annotated[str, AfterValidator(_job_name), WithJsonSchema({"type": "string", "maxLength": 100})]
Line = Annotated[
    str,
    BeforeValidator(_plain_text),
    AfterValidator(_one_line),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Word = Annotated[Line, AfterValidator(_no_dash)]
Text = Annotated[
    str,
    BeforeValidator(_plain_text),
    AfterValidator(_no_nul),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Script = Annotated[Path, BeforeValidator(_to_path)]
JobPath = Annotated[Path, BeforeValidator(_to_path), AfterValidator(_anchor)]
PythonCommand = Annotated[Line, AfterValidator(_python)]
VariableName = Annotated[str, AfterValidator(_variable)]
OptionName = Annotated[str, AfterValidator(_option_name)]
OptionText = Annotated[
    str,
    BeforeValidator(_plain_text),
    AfterValidator(_one_line_or_empty),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
