"""Sweeps: `matrix` of the job file, or `cluster.slurm.array`, as points with the settings that make them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem
from orchestrator.plan import PLACEHOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from orchestrator.job.load import LoadedJob

MAX_POINTS = 1001
"""Slurm's default for the elements of one array (MaxArraySize)."""
ARRAY_INDEX = "array_index"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep.

    Attributes:
        index: its number: from 0 on, or as `cluster.slurm.array` has it.
        label: what makes it different, short: `zero_stage=2,lr=1e-4`.
        settings: for load_job: they turn the sweep's job file into this point's.
    """

    index: int
    label: str
    settings: tuple[str, ...]


def points_of(job: LoadedJob) -> list[Point]:
    """Return the points of a sweep, the first parameter changing slowest; none for a job that is no sweep.

    Raises:
        JobFileError: a parameter without values, or one that nothing in the job file depends on.
    """
    slurm = job.spec.cluster.slurm
    if job.spec.matrix is not None:
        problems = list(_problems(job, job.spec.matrix))
        if problems:
            raise JobFileError(*problems)
        return list(_of_matrix(job, job.spec.matrix))
    if slurm is not None and slurm.array is not None:
        from orchestrator.job.slurm_grammar import array_indexes  # noqa: PLC0415 - few jobs have one

        indexes = array_indexes(slurm.array).indexes
        return [_point(job, index, {ARRAY_INDEX: str(index)}, f"{index}") for index in indexes]
    return []


def at_once(job: LoadedJob) -> int | None:
    """Return how many points may run at a time; None for no limit, which only Slurm has."""
    slurm = job.spec.cluster.slurm
    if slurm is not None and slurm.array is not None:
        from orchestrator.job.slurm_grammar import array_indexes  # noqa: PLC0415 - few jobs have one

        return array_indexes(slurm.array).at_most
    return job.spec.parallel or (None if job.spec.cluster.backend == "slurm" else 1)


def _of_matrix(job: LoadedJob, matrix: Mapping[str, list[str]]) -> Iterator[Point]:
    names = _short_names(matrix)
    for index, values in enumerate(itertools.product(*matrix.values())):
        chosen = dict(zip(matrix, values, strict=True))
        label = ",".join(f"{names[key]}={value}" for key, value in chosen.items())
        yield _point(job, index, chosen, label)


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """Return the last part of every key path, or all of it where that is another's too."""
    last = {key: key.rpartition(".")[2] for key in keys}
    taken = list(last.values())
    return {key: name if taken.count(name) == 1 else key for key, name in last.items()}


def _point(job: LoadedJob, index: int, chosen: Mapping[str, str], label: str) -> Point:
    names = {key: value for key, value in chosen.items() if "." not in key}
    paths = [f"{key}={value}" for key, value in chosen.items() if "." in key]
    slurm = job.spec.cluster.slurm
    rest = ["matrix=", "parallel="]
    rest += ["cluster.slurm.array="] if slurm is not None and slurm.array is not None else []
    return Point(index, label, (*_filled(job, names), *paths, *rest))


def _filled(job: LoadedJob, names: Mapping[str, str]) -> list[str]:
    """Return settings that put values in the place of `{name}` in arguments and variables."""
    train = job.spec.train

    def fill(text: str) -> str:
        for name, value in names.items():
            text = text.replace("{" + name + "}", value)
        return text

    args, env = [fill(arg) for arg in train.args], {key: fill(value) for key, value in train.env.items()}
    settings = [] if args == train.args else [f"train.args={json.dumps(args)}"]
    return settings if env == train.env else [*settings, f"train.env={json.dumps(env)}"]


def _problems(job: LoadedJob, matrix: Mapping[str, list[str]]) -> Iterator[Problem]:
    if not matrix:
        yield Problem("has no parameter", "matrix", fix="name one with its values, or remove matrix")
    count = 1
    for key, values in matrix.items():
        count *= len(values)
        where = job.source.where(("matrix", key))
        if not values:
            yield Problem("has no values", where, fix="list at least one value, or remove it")
        elif len(set(values)) < len(values):
            yield Problem("has the same value twice", where, fix="list each value once")
        yield from _name_problems(job, key, where)
    if count > MAX_POINTS:
        what = f"makes {count} points, and a sweep has at most {MAX_POINTS}"
        yield Problem(what, job.source.where(("matrix",)), fix="list fewer values")


def _name_problems(job: LoadedJob, key: str, where: str) -> Iterator[Problem]:
    if "." in key:
        return  # a key path; loading the point tells if there is no such key
    if key in PLACEHOLDERS:
        fix = "choose another name"
        yield Problem("{" + key + "} in an argument stands for something of the run", where, fix=fix)
    elif not any("{" + key + "}" in text for text in (*job.spec.train.args, *job.spec.train.env.values())):
        fix = f"write {{{key}}} where its value belongs, or give a key path such as deepspeed.zero_stage"
        yield Problem("is used in no argument and no variable of train", where, fix=fix)
