"""Which weights ZeRO-3 need not gather again: those it never cuts up, and those it keeps for backward.

Source: `runtime/zero/partitioned_param_coordinator.py` (DeepSpeed 0.19.8). A module keeps its weights when
they are used again within `stage3_max_reuse_distance` elements of the modules that follow
(`__params_to_release`). The prefetcher gathers ahead at every module, each time as many as its bucket, until
`stage3_max_live_parameters` are whole; where it runs into backward, it keeps what is whole there
(`fetch_sub_module`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.estimate.settings import Settings
    from orchestrator.estimate.shape import ModelShape


def persistent_elements(shape: ModelShape, settings: Settings) -> int:
    """Return the elements of the tensors that stay whole on every rank (0 when tensors are not known)."""
    if settings.stage < 3:
        return 0
    return sum(size * count for size, count in shape.sizes if size <= settings.persistence_threshold)


def kept_elements(shape: ModelShape, settings: Settings) -> int:
    """Return the elements that forward leaves whole because backward needs them soon.

    Between a module's forward and its backward lie all modules behind it, twice, and three times when
    backward recomputes them: the last half or third of `max_reuse` stays. So do the last modules that the
    prefetcher finds whole when it looks ahead into backward. In the first step, which only records the
    order, nothing is kept.
    """
    if settings.stage < 3:
        return 0
    reused = 0 if shape.is_inference else settings.max_reuse // (3 if settings.recompute else 2)
    return min(shape.parameters, max(reused, settings.prefetch_bucket))


def live_elements(shape: ModelShape, settings: Settings) -> int:
    """Return the elements that are whole on a rank when backward begins, kept and gathered ahead.

    So many lay on four GPUs after forward, with and without recomputation (`benchmarks/gpu_memory.py`).
    """
    if settings.stage < 3:
        return 0
    ahead = settings.max_live if settings.prefetch_bucket else shape.largest_layer or 0
    return min(shape.parameters, max(ahead, kept_elements(shape, settings)))


def gathers_in_backward(shape: ModelShape, settings: Settings) -> int:
    """Return how often backward gathers a weight that was not kept.

    Recomputation runs a block forward and then backward: it gathers twice only where a block has more
    elements than `max_reuse`, as with `stage3_max_reuse_distance: 0`.
    """
    return 2 if settings.recompute and settings.max_reuse <= (shape.block or 0) else 1
