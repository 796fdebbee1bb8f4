"""The global batch of a run that goes on with another number of ranks: it must be what it was.

Otherwise the step count, the learning rate and the order of the data would mean something else from there on.
The samples of a rank stay too, for its memory; so the accumulation steps change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.configs.batch import GLOBAL, MICRO, STEPS, data_parallel_size
from orchestrator.errors import JobFileError, Problem
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping


def kept_batch(before: Mapping[str, Any], world_size: int, micro: int | None = None) -> dict[str, int]:
    """Return DeepSpeed's three batch numbers that keep the global batch of a configuration.

    Args:
        before: the configuration of the run so far.
        world_size: ranks from now on.
        micro: samples of a rank in one forward pass, if not as many as before.

    Returns:
        All three numbers; nothing where the script alone knows them.

    Raises:
        JobFileError: the global batch cannot be cut up so.
    """
    total, each = before.get(GLOBAL), micro or before.get(MICRO)
    if not isinstance(total, int) or not isinstance(each, int):
        return {}
    ranks = data_parallel_size(before, world_size)
    if total % (each * ranks):
        raise JobFileError(_does_not_fit(total, each, ranks))
    return {GLOBAL: total, MICRO: each, STEPS: total // (each * ranks)}


def _does_not_fit(total: int, each: int, ranks: int) -> Problem:
    product = f"{counted(ranks, 'rank')} x {counted(each, 'sample')}"
    what = f"the global batch of {total} samples cannot be kept by {product}"
    smaller = [size for size in range(1, each) if total % (size * ranks) == 0]
    if smaller:
        fix = f"--set deepspeed.micro_batch_per_gpu={smaller[-1]}"
    else:
        fits = [str(size) for size in range(1, total + 1) if total % size == 0 and size < 2 * ranks][-3:]
        fix = f"take {' or '.join(fits)} ranks, or another global batch: --set deepspeed.global_batch=N"
    return Problem(what, "deepspeed.micro_batch_per_gpu", str(each), fix)
