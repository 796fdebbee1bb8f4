"""DeepSpeed's configuration from a job file: the JSON file, the fields, and both together.

The rules are those of DeepSpeed 0.19.8 (`runtime/config.py`, `runtime/zero/config.py`). Keys that a version
removed are for `versions` and the rules to find: they know which DeepSpeed the ranks import.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator.configs.as_read import as_read
from orchestrator.configs.auto import Autos, for_trainer_alone, remaining, resolve, unfilled
from orchestrator.configs.batch import BATCH_FIELDS, GLOBAL, MICRO, STEPS, resolve_batch
from orchestrator.configs.fields import wishes
from orchestrator.configs.hidden_size import hidden_size
from orchestrator.configs.json_source import read_json_object
from orchestrator.configs.merge import Origins, contradicted, fill, merge, not_json
from orchestrator.configs.offload import offload_problems
from orchestrator.configs.sizes import round_sizes
from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job.deepspeed_spec import DeepSpeedSpec
    from orchestrator.job.model import Launcher
    from orchestrator.job.model_spec import ModelSpec


@dataclass(frozen=True)
class Built:
    """DeepSpeed's configuration, and what there is to say about it.

    Attributes:
        config: ready to be written as JSON.
        warnings: what was changed or is likely to go wrong, such as sizes that were no whole numbers.
        resolved: values that were `auto`, and what they are now.
        unresolved: dotted keys that stay `auto` for the training script.
        origins: where its values are written.
    """

    config: dict[str, Any]
    warnings: tuple[Problem, ...] = ()
    resolved: tuple[Problem, ...] = ()
    unresolved: tuple[str, ...] = ()
    origins: Origins = field(default_factory=lambda: Origins((), {}, ""))


def build(
    spec: DeepSpeedSpec,
    pool: HostPool,
    base_dir: Path,
    *,
    launcher: Launcher = "torchrun",
    model: ModelSpec | None = None,
) -> Built:
    """Return DeepSpeed's configuration.

    Fields fill what the file leaves out or calls `auto`; overrides are merged last. What is `auto` after that
    is filled here, or stays for the training script (`deepspeed.auto`).

    Args:
        spec: section `deepspeed` of the job file.
        pool: the hosts that are used: their number of ranks decides about batch sizes and `hpz: node`.
        base_dir: folder where a relative `config_file` starts.
        launcher: the training launcher: a script that accelerate starts fills `auto` itself.
        model: section `model`, whose hidden size some `auto` values follow.

    Raises:
        JobFileError: the file is not JSON; a field and the file differ; batch sizes do not fit the ranks; an
            offload that the stage does not have; an `auto` that nobody fills.
    """
    built, problems = attempt(spec, pool, base_dir, launcher=launcher, model=model)
    if problems:
        raise JobFileError(*problems)
    return built


def attempt(
    spec: DeepSpeedSpec, pool: HostPool, base_dir: Path, *, launcher: Launcher, model: ModelSpec | None
) -> tuple[Built, tuple[Problem, ...]]:
    """Return DeepSpeed's configuration as far as it can be told, and what is wrong with it.

    Args: as for `build`.

    Returns:
        Where something is wrong, the configuration is for looking at alone: what fields and file say
        differently is the file's; inf, nan and the number of a batch that does not fit are left out.

    Raises:
        JobFileError: the file cannot be read as JSON.
    """
    config, origins, problems = _merged(spec, pool, base_dir, launcher)
    name = origins.file
    mode = spec.auto or ("script" if launcher == "accelerate" else "resolve")
    autos = Autos(mode, launcher, hidden_size(model, base_dir, os.environ), origins)
    if autos.mode == "script" and launcher == "accelerate" and not name:
        _leave_batch(config)
    read = list(as_read(config, origins))
    problems += [*not_json(config, origins), *_set_batch(config, pool, origins)]
    resolved = tuple(resolve(config, autos))
    problems += offload_problems(config, spec, origins)
    warnings = [*read, *contradicted(origins.wishes, spec.overrides), *round_sizes(config, origins)]
    warnings += for_trainer_alone(config, autos)
    problems += [*_set_batch(config, pool, origins), *unfilled(config, autos)]
    unresolved = tuple(".".join(path) for path in remaining(config, autos))
    warnings += () if problems else _without_batch(config)
    return Built(config, tuple(warnings), resolved, unresolved, origins), tuple(dict.fromkeys(problems))


def _merged(
    spec: DeepSpeedSpec, pool: HostPool, base_dir: Path, launcher: Launcher
) -> tuple[dict[str, Any], Origins, list[Problem]]:
    """Return file, fields and overrides in one, where each is from, and what contradicts the file."""
    config, name = _file(spec, base_dir)
    asked = wishes(spec, pool, config, launcher)
    problems = [problem for wish in asked for problem in fill(config, wish, name)]
    merge(config, spec.overrides)
    return config, Origins(asked, spec.overrides, name), problems


def _file(spec: DeepSpeedSpec, base_dir: Path) -> tuple[dict[str, Any], str]:
    """Return what the DeepSpeed file holds, and its path; nothing and "" without one."""
    if spec.config_file is None:
        return {}, ""
    path = base_dir / spec.config_file.expanduser()
    return read_json_object(path, "deepspeed.config_file"), str(path)


def _leave_batch(config: dict[str, Any]) -> None:
    """Let the script tell the batch sizes where no field does, as Accelerate does without a file.

    Accelerate takes them from the script's data loaders and its Accelerator; a DeepSpeed file without these
    keys, which is what it gets from us, would leave DeepSpeed with none.
    """
    if GLOBAL not in config and MICRO not in config:
        config |= {GLOBAL: "auto", MICRO: "auto", STEPS: config.get(STEPS, "auto")}


def _set_batch(config: dict[str, Any], pool: HostPool, origins: Origins) -> list[Problem]:
    """Put in those batch numbers that follow from the others; return what is wrong with them."""
    try:
        config.update(resolve_batch(config, pool.world_size))
    except JobFileError as error:
        problems = [_where_written(problem, config, origins) for problem in error.problems]
        wrong = {problem.where.removeprefix("deepspeed.") for problem in error.problems}
        for key in [key for key, name in BATCH_FIELDS.items() if name in wrong]:
            config.pop(key, None)
        return problems
    return []


def _where_written(problem: Problem, config: dict[str, Any], origins: Origins) -> Problem:
    """Return a problem with the batch in the words, and at the place, of where its numbers are written."""
    asked = {wish.field for wish in origins.wishes}
    names = {name: key for key, name in BATCH_FIELDS.items() if name not in asked and key in config}
    place = problem.where.removeprefix("deepspeed.")
    where = origins.where((names[place],)) if place in names else problem.where
    fix = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), problem.fix)
    return replace(problem, where=where, fix=fix)


def _without_batch(config: dict[str, Any]) -> Iterator[Problem]:
    if GLOBAL not in config and MICRO not in config:
        what = "no batch size is given, and DeepSpeed refuses a configuration without one"
        yield Problem(what, "deepspeed", fix="add micro_batch_per_gpu, unless the script adds it")
