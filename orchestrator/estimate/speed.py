"""How long an optimizer step takes: a first-order model, to rank settings and for orders of magnitude.

Arithmetic and the network go on side by side, but not wholly: a micro-step begins with a gather and ends
with a reduction that nothing hides. The root of the sum of their squares, which is within an eighth of the
larger one where that is twice the other, came nearer to every run below than the larger one alone. What
waits for the gradients comes on top: the optimizer and what it copies. Arithmetic takes at least the time
in which DeepSpeed's hooks run. Latency, the quantization kernels and the jitter of many hosts are left out,
so small models and fast networks take longer than this says.

How good it is: a 1.0B model on two "hosts" of two GPUs with a link of 10 Gbit/s each way took 3.61 s
(ZeRO-3), 2.49 (hpZ), 2.43 (qwZ), 2.58 (qgZ) and 0.90 s (all three); this says 3.67, 2.48, 2.46, 2.65 and
0.85. With four micro-steps ZeRO-3, hpZ and all three took 14.4, 6.6 and 1.96 s; this says 14.7, 6.2 and
1.65. At 25 Gbit/s all three took 0.53 s; this says 0.39 (`benchmarks/zeropp.py`). GPT-2 18B on 64 V100
(DeepSpeed's ZeRO++ tutorial) took 9.96 s and with ZeRO++ 3.68 s; with the 89 Gbit/s per host that the first
figure implies, this says 9.6 and 2.6.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.estimate.traffic import traffic

if TYPE_CHECKING:
    from orchestrator.estimate.hardware import Hardware
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape

_ADAM_BYTES = 30
"""For each parameter CPU Adam reads and writes weight, momentum and variance, and reads a gradient, all in
fp32, and writes a 16-bit weight."""
_HOST_BANDWIDTH = 100e9
"""Bytes/s of host memory that CPU Adam reaches, half of what eight channels of DDR4 give: an assumption."""

_HOOKS = 0.010
"""Seconds that DeepSpeed 0.19.8 takes at stage 3 for a transformer block in a micro-step, small as it may be:
weights are gathered and let go in Python, module by module. Four H200 took 0.24 s for 24 blocks over NVLink,
ten times what the arithmetic is (`benchmarks/gpu_memory.py`)."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by what takes them.

    Attributes:
        compute: arithmetic of all micro-steps, or DeepSpeed's hooks where they take longer; None when the
            model's or the GPU's figures are not known.
        network: between hosts; 0 for one host, None when the link is not known.
        gpu_link: between the GPUs of a host; 0 when that link is not known.
        offload: weights and gradients on their way from and to host memory or NVMe, and CPU Adam.
        total: of the step; None while compute or network is None.
        bound: what decides: `compute`, `network`, `gpu_link` or `offload`; "" when the total is not known.
        missing: key paths that would have to be given for what is None or 0.
    """

    compute: float | None
    network: float | None
    gpu_link: float
    offload: float
    total: float | None
    bound: str
    missing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return all parts in seconds."""
        return asdict(self)


def step_time(shape: ModelShape, settings: Settings, world: World, hardware: Hardware) -> StepTime:
    """Return how long one optimizer step takes.

    Args:
        shape: the model; its sequence length decides on the arithmetic.
        settings: DeepSpeed's; its micro-batch likewise.
        world: the ranks.
        hardware: peak and links; the network's is shared by the ranks of a host, the others are each GPU's
            own.
    """
    sent = traffic(shape, settings, world)
    waits = sent.ring.update_gather + (0 if settings.overlap_comm else sent.ring.reduce)
    compute = _compute(shape, settings, hardware)
    network = _over(sent.ring.total, hardware.link)
    gpu_link = _over(sent.inside.total, hardware.gpu_link) or 0.0
    fetched, update = _offload(shape, settings, world, hardware)
    total, bound = None, ""
    if compute is not None and network is not None:
        after = _over(waits, hardware.link) or 0.0
        total = max(math.hypot(compute, network - after), gpu_link, fetched) + after + update
        parts = {"compute": compute, "network": network, "gpu_link": gpu_link, "offload": fetched + update}
        bound = max(parts, key=lambda name: parts[name])
    missing = tuple(_missing(shape, settings, hardware, sent.ring.total, sent.inside.total))
    return StepTime(compute, network, gpu_link, fetched + update, total, bound, missing)


def flops(shape: ModelShape, settings: Settings) -> int | None:
    """Return the floating-point operations of one rank in one optimizer step; None when tokens are not known.

    For each token and parameter two in forward, two for the gradient of its input, two for its own where it
    is trained, two more with recomputation: 6 or 8 for a whole model (arXiv 2205.05198, appendix A).
    Attention's own products, `4 layers h s` for each token, count alike. Inference has the forward alone.
    """
    if settings.micro_batch is None or not shape.sequence_length:
        return None
    tokens = settings.micro_batch * shape.sequence_length * settings.accumulation
    if shape.is_inference:
        return 2 * tokens * (shape.active + _attention(shape))
    trained = shape.active * shape.trainable // shape.parameters
    passes = 3 if settings.recompute else 2
    attention = _attention(shape)
    return 2 * tokens * (passes * (shape.active + attention) + trained + attention)


def _attention(shape: ModelShape) -> int:
    """Return what attention's own products count for each token, in parameters."""
    return 2 * (shape.layers or 0) * (shape.hidden_size or 0) * (shape.sequence_length or 0)


def _compute(shape: ModelShape, settings: Settings, hardware: Hardware) -> float | None:
    work, peak = flops(shape, settings), hardware.peak(settings.precision)
    if work is None or peak is None:
        return None
    hooked = settings.stage == 3 and hardware.device == "cuda"
    hooks = _HOOKS * (shape.layers or 0) * settings.accumulation if hooked else 0.0
    return max(work / (peak * hardware.efficiency), hooks)


def _over(size: float, bandwidth: float | None) -> float | None:
    """Return the seconds that so many bytes take; 0 for none, None when the bandwidth is not known."""
    if size == 0:
        return 0.0
    return None if bandwidth is None else size / bandwidth


def _offload(shape: ModelShape, settings: Settings, world: World, hardware: Hardware) -> tuple[float, float]:
    """Return the seconds of what is fetched beside the arithmetic, and of what the optimizer waits for."""
    fetched = update = 0.0
    mine = settings.parameter_bytes * shape.parameters / max(settings.hpz_group(world), 1)
    share = mine if settings.hpz_group(world) > 1 else mine / world.size
    if settings.offload_param != "none":
        weights = (1 if shape.is_inference else 2) * settings.accumulation * share
        fetched += _over(weights, hardware.host_link) or 0.0
        if settings.offload_param == "nvme":
            fetched += _over(weights * world.gpus_per_node, hardware.nvme) or 0.0
    if settings.offload_optimizer != "none":
        trained = shape.trainable / world.size
        moved = trained * (settings.accumulate_bytes * settings.accumulation + settings.parameter_bytes)
        update += _over(moved, hardware.host_link) or 0.0
        update += _ADAM_BYTES * trained * world.gpus_per_node / _HOST_BANDWIDTH
        if settings.offload_optimizer == "nvme":
            states = 2 * (4 + settings.state_bytes) * trained * world.gpus_per_node  # read and written
            update += _over(states, hardware.nvme) or 0.0
    return fetched, update


def _missing(
    shape: ModelShape, settings: Settings, hardware: Hardware, between: int, inside: int
) -> list[str]:
    offloads = (settings.offload_optimizer, settings.offload_param)
    wanted = {
        "deepspeed.micro_batch_per_gpu": settings.micro_batch,
        "model.sequence_length": shape.sequence_length,
        "hardware.gpu_tflops": hardware.peak(settings.precision),
        "hardware.link": hardware.link or not between,
        "hardware.gpu_link": hardware.gpu_link or not inside,
        "hardware.host_link": hardware.host_link or offloads == ("none", "none"),
        "hardware.nvme": hardware.nvme or "nvme" not in offloads,
    }
    return [name for name, value in wanted.items() if not value]
