"""Load a job file, or say all that is wrong with it; its JSON Schema."""

from __future__ import annotations

import re
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from orchestrator.errors import JobFileError, Problem
from orchestrator.job.model import JobSpec
from orchestrator.job.values import BASE_DIR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.job.yaml_source import KeyPath, YamlSource


@dataclass(frozen=True)
class LoadedJob:
    """A job file that has been read and found right.

    Attributes:
        spec: what it says; its paths are absolute, but for `train.script`, which is as written.
        path: the file, as given.
        text: the effective YAML: the file's own text, or with overrides the document they make.
        base_dir: absolute folder of the file, where its relative paths start.
        source: the document with its lines.
    """

    spec: JobSpec
    path: Path
    text: str
    base_dir: Path
    source: YamlSource

    def located(self, problem: Problem) -> Problem:
        """Return a problem whose `where` is a key path with the file and line of that key before it."""
        keys = tuple(int(key) if key.isdecimal() else key for key in problem.where.split("."))
        if keys[0] in ("include", "exclude"):  # as the filters, which know no job file, call themselves
            keys = ("cluster", *keys)
        if keys[0] not in JobSpec.model_fields:
            return problem
        return replace(problem, where=self.source.where(keys))


def load_job(path: Path, overrides: Sequence[str] = (), base_dir: Path | None = None) -> LoadedJob:
    """Read a job file and check it.

    Args:
        path: the YAML file.
        overrides: settings `a.b=value` that go before what the file says, the last one first.
        base_dir: where its relative paths start, if not in the file's own folder.

    Raises:
        JobFileError: with every problem that was found, each with its line or its override.
    """
    from orchestrator.job.yaml_edit import apply_setting  # noqa: PLC0415 - models alone need no YAML
    from orchestrator.job.yaml_source import parse_yaml  # noqa: PLC0415

    path = Path(path)
    text = _text(path)
    base_dir = base_dir or path.parent.absolute()
    source = parse_yaml(text, str(path))
    for setting in overrides:
        source = apply_setting(source, setting)
    spec = _validated(source, base_dir)
    return LoadedJob(spec, path, source.dump() if overrides else text, base_dir, source)


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a job file."""
    schema = JobSpec.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Training job"}
    return {**head, **{key: value for key, value in schema.items() if key != "title"}}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobFileError(Problem("no such file", str(path), fix="give the path of a job file")) from None
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {error.start}"
        raise JobFileError(Problem(what, str(path), fix="save the file as UTF-8")) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise JobFileError(Problem(what, str(path), fix="give a file you may read")) from None


def _validated(source: YamlSource, base_dir: Path) -> JobSpec:
    from orchestrator.job.contradictions import contradictions  # noqa: PLC0415 - YAML comes with it
    from orchestrator.job.problems import to_problems  # noqa: PLC0415

    data = _as_meant(source.data, (), JobSpec, source)
    found = [Problem(each.what, source.where(each.path), fix=each.fix) for each in contradictions(data)]
    try:
        spec = JobSpec.model_validate(data, context={BASE_DIR: base_dir})
    except ValidationError as error:
        found = to_problems(error.errors(include_url=False), source, JobSpec) + found
    if found:
        raise JobFileError(*sorted(found, key=_line))
    return spec


def _line(problem: Problem) -> tuple[bool, int]:
    """Order problems by line, those of overrides last."""
    match = re.search(r":(\d+)(?:: |$)", problem.where)
    is_setting = problem.where.startswith("--set")
    return is_setting, int(match[1]) if match and not is_setting else 0


def _as_meant(value: Any, path: KeyPath, annotation: Any, source: YamlSource) -> Any:
    """Return `value` with every scalar that becomes text as it was typed, and without keys that say nothing.

    YAML would turn the argument `1e-4` into 0.0001, `on` into true and `010` into 8.
    """
    model = _model(annotation)
    if isinstance(value, dict) and model:
        fields = {name: field.annotation for name, field in model.model_fields.items()}
        return {
            key: _as_meant(inner, (*path, key), fields.get(key), source)
            for key, inner in value.items()
            if inner is not None or key not in fields
        }
    if isinstance(value, dict):
        item = _item(annotation, dict, 1)
        return {key: _as_meant(inner, (*path, key), item, source) for key, inner in value.items()}
    if isinstance(value, list):
        item = _item(annotation, list, 0)
        return [_as_meant(inner, (*path, i), item, source) for i, inner in enumerate(value)]
    return source.texts.get(path, value) if _is_text(annotation) else value


def _members(annotation: Any) -> list[Any]:
    """Return the types that `annotation` allows, without Annotated and without None."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation in (None, types.NoneType) else [annotation]


def _model(annotation: Any) -> type[BaseModel] | None:
    models = [each for each in _members(annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
    return models[0] if models else None


def _item(annotation: Any, container: type, index: int) -> Any:
    containers = [each for each in _members(annotation) if get_origin(each) is container]
    return get_args(containers[0])[index] if containers else None


def _is_text(annotation: Any) -> bool:
    return any(each in (str, Path) for each in _members(annotation))
