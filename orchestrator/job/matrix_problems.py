"""What can be wrong with `matrix` before any of its points is looked at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.job.model import JobSpec
from orchestrator.plan import PLACEHOLDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.job.load import LoadedJob

MAX_POINTS = 1001
"""Slurm's default for the elements of one array (MaxArraySize)."""
ARRAY_INDEX = "array_index"
"""Stands for the point's index wherever a name of the matrix may stand."""
_OF_THE_SWEEP = (
    *("matrix", "parallel", "run_root"),
    *("cluster.backend", "cluster.login", "cluster.slurm.array"),
)


def is_key_path(key: str) -> bool:
    """Tell whether a parameter is a key of the job file, and no name that stands for `{name}`."""
    return "." in key or key in JobSpec.model_fields


def matrix_problems(job: LoadedJob) -> Iterator[Problem]:
    """Yield what is wrong with the names and the number of the values."""
    matrix = job.spec.matrix or {}
    if not matrix:
        fix = "name one with its values, or remove matrix"
        yield Problem("has no parameter", job.source.where(("matrix",)), fix=fix)
    for key, values in matrix.items():
        where = job.source.where(("matrix", key))
        if not values:
            yield Problem("has no values", where, fix="list at least one value, or remove it")
        elif len(set(values)) < len(values):
            yield Problem("has the same value twice", where, fix="list each value once")
        yield from _wrong_path(job, key, where) if is_key_path(key) else _wrong_name(job, key, where)
    count = math.prod(map(len, matrix.values()))
    if count > MAX_POINTS:
        what = f"makes {count} points, and a sweep has at most {MAX_POINTS}"
        yield Problem(what, job.source.where(("matrix",)), fix="list fewer values")


def _wrong_path(job: LoadedJob, key: str, where: str) -> Iterator[Problem]:
    """Yield what makes a key path no parameter; a key that is not there is told by its points."""
    parts = key.split(".")
    ours = next((path for path in _OF_THE_SWEEP if f"{key}.".startswith(f"{path}.")), None)
    if ours is not None:
        fix = "remove it from matrix; submit a sweep for each value"
        yield Problem(f"{ours} belongs to the sweep: it is the same for all points", where, fix=fix)
    elif "." in key and parts[0] not in JobSpec.model_fields:
        fix = "a key path starts as in the job file, deepspeed.zero_stage; a plain name has no dot"
        yield Problem(f"a job file has no key {parts[0]}", where, fix=fix)
    elif _is_used(job, key):
        fix = f"choose another name than {key} for what stands in train.args"
        yield Problem(f"is a key of the job file, and {{{key}}} is used in train as well", where, fix=fix)


def _wrong_name(job: LoadedJob, name: str, where: str) -> Iterator[Problem]:
    if name in (*PLACEHOLDERS, ARRAY_INDEX):
        what = "{" + name + "} in an argument stands for something of the run"
        yield Problem(what, where, fix="choose another name")
    elif not _is_used(job, name):
        fix = f"write {{{name}}} where its value belongs, or give a key path such as deepspeed.zero_stage"
        yield Problem("is used in no argument and no variable of train", where, fix=fix)


def _is_used(job: LoadedJob, name: str) -> bool:
    train = job.spec.train
    texts = (*train.args, *train.resume_args, *train.env.values(), str(train.checkpoint_dir))
    return any("{" + name + "}" in text for text in texts)
