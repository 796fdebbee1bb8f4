"""Sweeps: `matrix` of the job file, or `cluster.slurm.array`, as points with the settings that make them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError
from orchestrator.job.matrix_problems import ARRAY_INDEX, is_key_path, matrix_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.job.load import LoadedJob

_LABEL_VALUE = 32  # characters of a value in a label
_NO_SWEEP = ("matrix=", "parallel=")


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep.

    Attributes:
        index: its number: from 0 on, or as `cluster.slurm.array` has it.
        label: what makes it different, short: `zero_stage=2,lr=1e-4`.
        settings: for load_job: they turn the sweep's job file into this point's.
        places: for the settings that come from one value of `matrix`, where that stands.
    """

    index: int
    label: str
    settings: tuple[str, ...]
    places: dict[str, str] = field(default_factory=dict)


def points_of(job: LoadedJob) -> list[Point]:
    """Return the points of a sweep, the first parameter changing slowest; none for a job that is no sweep.

    Raises:
        JobFileError: a parameter without values, or one that nothing in the job file depends on.
    """
    if job.spec.matrix is not None:
        problems = list(matrix_problems(job))
        if problems:
            raise JobFileError(*problems)
        return list(_of_matrix(job, job.spec.matrix))
    array = _array(job)
    if array is None:
        return []
    from orchestrator.job.slurm_grammar import array_indexes  # noqa: PLC0415 - few jobs have one

    rest = (*_NO_SWEEP, "cluster.slurm.array=")
    indexes = array_indexes(array).indexes
    return [Point(index, f"{index}", (*_filled(job, {ARRAY_INDEX: str(index)}), *rest)) for index in indexes]


def at_once(job: LoadedJob) -> int | None:
    """Return how many points may run at a time; None for no limit, which only Slurm has."""
    array = _array(job)
    if array is not None:
        from orchestrator.job.slurm_grammar import array_indexes  # noqa: PLC0415 - few jobs have one

        return array_indexes(array).at_most or job.spec.parallel
    return job.spec.parallel or (None if job.spec.cluster.backend == "slurm" else 1)


def _array(job: LoadedJob) -> str | None:
    slurm = job.spec.cluster.slurm
    return None if slurm is None else slurm.array


def _of_matrix(job: LoadedJob, matrix: Mapping[str, list[str]]) -> Iterator[Point]:
    names, shown = _short_names(matrix), {key: _short_values(values) for key, values in matrix.items()}
    for index, numbers in enumerate(itertools.product(*(range(len(values)) for values in matrix.values()))):
        chosen = dict(zip(matrix, numbers, strict=True))
        label = ",".join(f"{names[key]}={shown[key][number]}" for key, number in chosen.items())
        plain = {key: matrix[key][number] for key, number in chosen.items() if not is_key_path(key)}
        paths = {key: number for key, number in chosen.items() if is_key_path(key)}
        settings = {_setting(key, matrix[key][number]): (key, number) for key, number in paths.items()}
        places = {setting: job.source.where(("matrix", *at)) for setting, at in settings.items()}
        filled = _filled(job, plain | {ARRAY_INDEX: str(index)})
        yield Point(index, label, (*filled, *settings, *_NO_SWEEP), places)


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of every key path, or all of it where that is another's too."""
    last = {key: _last(key) for key in keys}
    taken = list(last.values())
    return {key: name if taken.count(name) == 1 else key for key, name in last.items()}


def _last(key: str) -> str:
    rest, _, last = key.rpartition(".")
    return f"{_last(rest)}.{last}" if last.isdecimal() else last


def _short_values(values: list[str]) -> list[str]:
    """Return values on one line and without the middle of long ones, as long as that tells them apart."""
    lines = [" ".join(value.split()) for value in values]
    half = _LABEL_VALUE // 2
    short = [line if len(line) <= _LABEL_VALUE else f"{line[:half]}…{line[-half:]}" for line in lines]
    return next(texts for texts in (short, lines, values) if len(set(texts)) == len(texts))


def _filled(job: LoadedJob, names: Mapping[str, str]) -> list[str]:
    """Return settings that put values in the place of `{name}`, in all that may hold it."""
    train = job.spec.train
    pattern = re.compile("{(" + "|".join(map(re.escape, names)) + ")}")

    def fill(text: str) -> str:  # in one go: a value that holds braces stays as it is
        return pattern.sub(lambda match: names[match[1]], text)

    settings = []
    for key, texts in (("args", train.args), ("resume_args", train.resume_args)):
        if any(map(pattern.search, texts)):
            settings.append(f"train.{key}=[{', '.join(_quoted(fill(text)) for text in texts)}]")
    if any(map(pattern.search, train.env.values())):
        pairs = (f"{key}: {_quoted(fill(value))}" for key, value in train.env.items())
        settings.append(f"train.env={{{', '.join(pairs)}}}")
    if pattern.search(str(train.checkpoint_dir)):
        settings.append(f"train.checkpoint_dir={_quoted(fill(str(train.checkpoint_dir)))}")
    return settings


def _setting(key: str, value: str) -> str:
    """Return a setting that gives a key the value as it was typed."""
    import yaml  # noqa: PLC0415 - it has been imported by whoever has read the job file

    from orchestrator.job.yaml_source import compose  # noqa: PLC0415

    try:
        node = compose(value, key)
    except JobFileError:
        node = None
    plain = isinstance(node, yaml.ScalarNode) and node.value == value and not node.tag.endswith(":null")
    return f"{key}={value if plain else _quoted(value)}"


def _quoted(text: str) -> str:
    """Return a text as YAML in double quotes."""
    letters = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(letters)}"'
