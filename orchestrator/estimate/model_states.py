"""DeepSpeed's own estimate of model states, to the digit.

Source: `estimate_zero2_model_states_mem_needs` in `runtime/zero/stage_1_and_2.py` and
`estimate_zero3_model_states_mem_needs` in `runtime/zero/stage3.py` of DeepSpeed 0.19.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape

_BUFFER_FACTOR = 1.5  # DeepSpeed's additional_buffer_factor


@dataclass(frozen=True)
class ModelStates:
    """DeepSpeed's own estimate of model states: bytes of one GPU and of one host."""

    gpu: int
    host: int


def deepspeed_model_states(shape: ModelShape, settings: Settings, world: World) -> ModelStates | None:
    """Return what DeepSpeed's estimator says, to the digit; None where it has none.

    It has none for stages 0 and 1, and needs the largest layer at stage 3. It takes all parameters for
    trained and Adam for the optimizer.
    """
    offload = settings.offload_optimizer != "none"
    if settings.stage == 2:
        return _zero2(shape.parameters, world, offload=offload)
    if settings.stage != 3 or shape.largest_layer is None:
        return None
    layer = 4 * shape.largest_layer
    if not offload:
        on_host = layer if settings.zero_init else 4 * shape.parameters
        host = on_host * world.gpus_per_node * _BUFFER_FACTOR
        return ModelStates(layer + int(18 * shape.parameters / world.size), int(host))
    params_too = settings.offload_param != "none"
    gpu = layer if params_too else layer + int(2 * shape.parameters / world.size)
    share = 1 / world.nodes  # DeepSpeed multiplies by this: the order of operations decides the last digit
    factor = 18 if params_too else 16
    if settings.zero_init:
        return ModelStates(gpu, int(shape.parameters * factor * share * _BUFFER_FACTOR))
    return ModelStates(
        gpu, int(shape.parameters * max(4 * world.gpus_per_node, factor * share) * _BUFFER_FACTOR)
    )


def _zero2(parameters: int, world: World, *, offload: bool) -> ModelStates:
    if offload:
        return ModelStates(2 * parameters, int(parameters * max(4 * world.size, 16) * _BUFFER_FACTOR))
    gpu = 2 * parameters + int(18 * parameters / world.size)
    return ModelStates(gpu, int(parameters * 4 * world.gpus_per_node * _BUFFER_FACTOR))
