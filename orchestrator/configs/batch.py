"""Batch arithmetic: global batch = micro batch x accumulation steps x data-parallel ranks.

Source: `DeepSpeedConfig._set_batch_related_parameters` of DeepSpeed 0.19.8, which divides and drops
remainders; here a remainder is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

GLOBAL = "train_batch_size"
MICRO = "train_micro_batch_size_per_gpu"
STEPS = "gradient_accumulation_steps"
BATCH_FIELDS = {GLOBAL: "global_batch", MICRO: "micro_batch_per_gpu", STEPS: "gradient_accumulation_steps"}
"""By DeepSpeed's key: the field of the job file."""


@dataclass(frozen=True)
class _Known:
    """The three numbers of a configuration, None where one is not known."""

    total: int | None
    micro: int | None
    steps: int | None


def data_parallel_size(config: Mapping[str, Any], world_size: int) -> int:
    """Return the number of ranks that each take their own samples.

    Sequence parallelism and automatic tensor parallelism make several ranks work on the same samples.

    Raises:
        JobFileError: the world is not a multiple of such a group.
    """
    tensor = config.get("tensor_parallel")
    group = _count(config.get("sequence_parallel_size")) or 1
    group *= _count(tensor.get("autotp_size") if isinstance(tensor, dict) else None) or 1
    if world_size % group:
        ranks, parallel = counted(world_size, "rank"), "(sequence and tensor parallelism)"
        what = f"{ranks} cannot be split into groups of {group} {parallel}"
        raise JobFileError(Problem(what, "deepspeed", fix="change the number of ranks or the parallel sizes"))
    return world_size // group


def resolve_batch(config: Mapping[str, Any], world_size: int) -> dict[str, int]:
    """Return those of DeepSpeed's three batch numbers that follow from the others.

    Args:
        config: DeepSpeed configuration; `auto` and a missing key are not known.
        world_size: number of ranks.

    Returns:
        All three numbers where they can be told, else nothing (the script fills what is `auto`).

    Raises:
        JobFileError: a number is no positive whole number, or the three do not fit each other.
    """
    _check_numbers(config)
    ranks = data_parallel_size(config, world_size)
    known = _Known(*(_count(config.get(key)) for key in (GLOBAL, MICRO, STEPS)))
    if known.steps is None and STEPS not in config and (known.total is None or MICRO not in config):
        known = _Known(known.total, known.micro, 1)  # DeepSpeed's own default
    if (known.total, known.micro, known.steps).count(None) > 1:
        return {}
    full = _complete(known, ranks)
    if full.total != (full.micro or 0) * (full.steps or 0) * ranks:
        raise JobFileError(_mismatch(known, ranks))
    return {GLOBAL: full.total or 0, MICRO: full.micro or 0, STEPS: full.steps or 0}


def _check_numbers(config: Mapping[str, Any]) -> None:
    problems = [
        Problem(
            f"{key} must be a whole number of 1 or more",
            f"deepspeed.{BATCH_FIELDS[key]}",
            repr(config[key]),
            "write a number such as 8",
        )
        for key in (GLOBAL, MICRO, STEPS)
        if config.get(key) not in (None, "auto") and _count(config[key]) is None
    ]
    if problems:
        raise JobFileError(*problems)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value % 1 != 0:
        return None
    return int(value)


def _complete(known: _Known, ranks: int) -> _Known:
    total, micro, steps = known.total, known.micro, known.steps
    if total is None:
        return _Known((micro or 0) * (steps or 0) * ranks, micro, steps)
    if micro is None:
        return _Known(total, total // ((steps or 1) * ranks), steps)
    return known if steps is not None else _Known(total, micro, total // (micro * ranks))


def _mismatch(known: _Known, ranks: int) -> Problem:
    """Say which numbers do not fit, and each single number that would make them fit."""
    total, micro, steps = known.total or 0, known.micro, known.steps
    factors = (
        [counted(micro or 0, "sample")] * bool(micro)
        + [counted(steps or 0, "accumulation step")] * bool(steps)
        + [counted(ranks, "rank")]
    )
    product = (micro or 1) * (steps or 1) * ranks
    relation = f"= {product}" if micro and steps else f"= {product}, no divisor of {total}"
    what = f"the global batch {total} does not fit {' x '.join(factors)} {relation}"
    return Problem(what, "deepspeed.global_batch", fix=" or ".join(_ways(total, micro, steps, ranks)))


def _ways(total: int, micro: int | None, steps: int | None, ranks: int) -> list[str]:
    product = (micro or 1) * (steps or 1) * ranks
    below, above = total // product * product, -(-total // product) * product
    totals = [product] if micro and steps else sorted({below, above} - {0})
    ways = [f"set global_batch: {' or '.join(str(each) for each in totals)}"]
    if steps and total % (steps * ranks) == 0:
        ways.append(f"micro_batch_per_gpu: {total // (steps * ranks)}")
    if micro and total % (micro * ranks) == 0:
        ways.append(f"gradient_accumulation_steps: {total // (micro * ranks)}")
    return [*ways, "change the number of ranks"] if len(ways) == 1 else ways
