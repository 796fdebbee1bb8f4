"""Memory of a GPU and of a host: DeepSpeed's own estimate of model states, and a prediction of the peak.

The two are different numbers. `deepspeed_model_states` is what DeepSpeed 0.19.8 answers
(`estimate_zero2_model_states_mem_needs` in `runtime/zero/stage_1_and_2.py`, `estimate_zero3_…` in
`stage3.py`): parameters, gradients and Adam's states, with a factor of 1.5 on host memory, and nothing of
hpZ, buffers or activations. `gpu_memory` predicts what `torch.cuda.max_memory_allocated` reaches.

How well it predicts: on four H200, with 13 settings of a Llama of 1.3B, 12 peaks within 3 % and one within
7 % (`benchmarks/results/gpu_memory.json`). Between steps it was within 1 % of the log in DeepSpeed's ZeRO++
tutorial (GPT-2 18B, 64 V100: 4421 MB), hpZ's copy 11 % above the 1973 MB that the peak rose there. CUDA's
context (0.3 to 0.6 GB), NCCL's buffers and what the allocator loses between blocks are not in the number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.estimate.activations import activation_bytes, logit_bytes
from orchestrator.estimate.reuse import live_elements, persistent_elements

if TYPE_CHECKING:
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape

_INT8 = 1
_MASTER = 4  # bytes of a parameter's fp32 copy
_PARAM_BUFFERS = 5 * 100_000_000  # elements: buffer_count x buffer_size of offload_param to nvme
_SWAP_BUFFERS = 4  # buffer_count of offload_optimizer to nvme


@dataclass(frozen=True)
class MemoryPerGpu:
    """Memory of one GPU in bytes, by what it holds.

    Attributes:
        parameters: this rank's share of the weights, or all of them below stage 3.
        gradients: the buffer that gradients add up in. At stage 3, and wherever they add up over micro-steps,
            it is there from the start; else it grows while backward frees activations.
        optimizer: fp32 master weights and the optimizer's states.
        secondary: hpZ's second copy, a z-th of the weights that are cut up again when the memory peaks: in a
            single micro-step that peaks as backward begins, those that are still whole have none yet.
        live: weights that are whole for a while: gathered, prefetched, kept for backward, persistent.
        buffers: buckets of the reduction, and what quantized collectives need on their way.
        activations: kept from forward for backward; None when the model's sizes are not known.
        logits: the last layer's output in fp32 and its gradients; None when not known.
        step: what the optimizer makes of the gradients while it works: copies in fp32 and 16 bits.
        early: gradients are there when backward begins.
        missing: what had to be known for the parts that are None.
    """

    parameters: int
    gradients: int
    optimizer: int
    secondary: int
    live: int
    buffers: int
    activations: int | None
    logits: int | None
    step: int
    early: bool = True
    missing: tuple[str, ...] = ()

    @property
    def states(self) -> int:
        """Return what is held between steps: parameters, gradients and optimizer."""
        return self.parameters + self.gradients + self.optimizer

    @property
    def backward(self) -> int:
        """Return the peak of forward and backward, without what is not known.

        Below stage 3 buckets are made once the logits are gone.
        """
        held = self.parameters + self.optimizer + self.secondary + self.live + (self.activations or 0)
        if self.early:
            return held + self.gradients + self.buffers + (self.logits or 0)
        return held + max(self.buffers, self.logits or 0)

    @property
    def update(self) -> int:
        """Return the peak while the optimizer works."""
        return self.states + self.secondary + self.step + (self.buffers if self.early else 0)

    @property
    def total(self) -> int:
        """Return the predicted peak: that of backward or of the optimizer, whichever is higher."""
        return max(self.backward, self.update)

    def to_json(self) -> dict[str, Any]:
        """Return all parts and sums, in bytes."""
        return asdict(self) | {"states": self.states, "total": self.total}


@dataclass(frozen=True)
class HostMemory:
    """Memory of one host in bytes, over all its ranks, besides Python and its libraries.

    Attributes:
        parameters: weights that are offloaded, or the buffers they pass on their way to NVMe.
        gradients: gradients of an offloaded optimizer.
        optimizer: fp32 master weights and states that are offloaded, or the buffers of their way to NVMe.
        secondary: hpZ's second copy, which goes where `offload_param` puts weights, page-locked.
        initial: the model while it is made: whole on every rank, in fp32, unless it is cut up as it is made.
        nvme: bytes on the host's NVMe.
    """

    parameters: int
    gradients: int
    optimizer: int
    secondary: int
    initial: int
    nvme: int

    @property
    def training(self) -> int:
        """Return what is held while training."""
        return self.parameters + self.gradients + self.optimizer + self.secondary

    @property
    def total(self) -> int:
        """Return the peak: making the model or training, whichever takes more."""
        return max(self.initial, self.training)

    def to_json(self) -> dict[str, Any]:
        """Return all parts and the total, in bytes."""
        return asdict(self) | {"total": self.total}


def gpu_memory(shape: ModelShape, settings: Settings, world: World) -> MemoryPerGpu:
    """Return the memory that one GPU needs, in bytes.

    Sources: the ZeRO paper (arXiv 1910.02054, section 3) for states by stage, `stage3.py` and
    `partition_parameters.py` of DeepSpeed 0.19.8 for what is allocated when, Korthikanti et al. (arXiv
    2205.05198) for activations.
    """
    activations, logits = activation_bytes(shape, settings), logit_bytes(shape, settings)
    missing = ["micro_batch"] if settings.micro_batch is None else []
    missing += [name for name in ("hidden_size", "layers", "sequence_length") if not getattr(shape, name)]
    missing += [] if shape.vocabulary else ["vocabulary"]
    if settings.attention == "eager" and not settings.recompute and not shape.heads:
        missing.append("heads")
    return MemoryPerGpu(
        parameters=_parameters(shape, settings, world),
        gradients=_gradients(shape, settings, world),
        optimizer=_optimizer(shape, settings, world),
        secondary=0 if settings.offload_param != "none" else _secondary(shape, settings, world),
        live=_live(shape, settings),
        buffers=_buckets(shape, settings) + _quantization(shape, settings, world, logits or 0),
        activations=activations,
        logits=logits,
        step=_step(shape, settings, world),
        early=settings.stage == 3 or settings.accumulation > 1,
        missing=tuple(missing) if activations is None or logits is None else (),
    )


def _weights(shape: ModelShape, settings: Settings) -> int:
    """Return the bytes of all weights as ZeRO-3 keeps them; frozen ones may be kept in 8 bits."""
    quantized = settings.quantized_nontrainable and settings.stage == 3
    frozen = _INT8 if quantized else settings.parameter_bytes
    return settings.parameter_bytes * shape.trainable + frozen * shape.frozen


def _parameters(shape: ModelShape, settings: Settings, world: World) -> int:
    if settings.stage < 3:
        return settings.parameter_bytes * shape.parameters
    return 0 if settings.offload_param != "none" else _share(_weights(shape, settings), world.size)


def _gradients(shape: ModelShape, settings: Settings, world: World) -> int:
    whole = settings.accumulate_bytes * shape.trainable
    if settings.stage < 2:
        return whole
    # An offloaded optimizer has the buffer of its gradients on the host (stage3.py: device=self.device).
    return 0 if settings.offload_optimizer != "none" else _share(whole, world.size)


def _optimizer(shape: ModelShape, settings: Settings, world: World) -> int:
    if settings.offload_optimizer != "none" and settings.stage > 0:
        return 0
    # Without ZeRO and with fp32 there is no second copy of the weights (engine.py: no optimizer wrapper).
    master = 0 if settings.stage == 0 and settings.precision == "fp32" else _MASTER
    whole = (master + settings.state_bytes) * shape.trainable
    return whole if settings.stage == 0 else _share(whole, world.size)


def secondary_bytes(shape: ModelShape, settings: Settings, world: World) -> int:
    """Return the bytes of hpZ's second copy on one rank: 2P/z, or P/z for frozen weights kept in 8 bits.

    It lies where `offload_param` puts weights (`partition_parameters.py`, `_partition_param_sec`).
    """
    group = settings.hpz_group(world)
    return 0 if group == 1 else _share(_weights(shape, settings), group)


def _secondary(shape: ModelShape, settings: Settings, world: World) -> int:
    """Return what of hpZ's second copy is there at the peak.

    Recomputation has few activations, so the peak comes later in backward, when the copy is whole.
    """
    whole = secondary_bytes(shape, settings, world)
    if settings.accumulation > 1 or settings.recompute:
        return whole
    return whole * (shape.parameters - live_elements(shape, settings)) // shape.parameters


def _live(shape: ModelShape, settings: Settings) -> int:
    if settings.stage < 3:
        return 0
    whole = live_elements(shape, settings) + persistent_elements(shape, settings)
    return settings.parameter_bytes * min(shape.parameters, whole)


def _buckets(shape: ModelShape, settings: Settings) -> int:
    """Return the buckets that gradients are copied into: one at stage 3, two with overlap below it."""
    if settings.stage == 0 or not settings.contiguous_gradients or not shape.trainable:
        return 0
    number = 2 if settings.stage < 3 and settings.overlap_comm else 1
    return number * settings.reduce_bytes * settings.reduce_bucket


def _quantization(shape: ModelShape, settings: Settings, world: World, logits: int) -> int:
    """Return what quantized collectives hold for a moment.

    Weights on their way take a byte each, gradients half a byte sent and half a byte received. When the first
    large gradient, that of the output layer, is on its way, the logits are gone.
    """
    if settings.stage < 3:
        return 0
    layer = shape.largest_layer or shape.block or 0
    weights = min(settings.prefetch_bucket, shape.parameters) if settings.quantized_weights else 0
    gradients = min(layer, shape.trainable) if settings.quantizes_gradients(world) else 0
    return max(weights, gradients - logits)


def _step(shape: ModelShape, settings: Settings, world: World) -> int:
    """Return what the optimizer makes of gradients: fp32 ones, and at stage 3 a 16-bit copy too (measured).

    At stage 3 it takes one sub-group at a time.
    """
    if settings.offload_optimizer != "none" or settings.precision == "fp32":
        return 0
    if settings.stage < 3:
        return 4 * (shape.trainable if settings.stage == 0 else _share(shape.trainable, world.size))
    return (4 + settings.parameter_bytes) * min(_share(shape.trainable, world.size), settings.sub_group)


def _share(whole: int, parts: int) -> int:
    return -(-whole // parts)


def host_memory(shape: ModelShape, settings: Settings, world: World) -> HostMemory:
    """Return the memory that one host needs for weights and states, in bytes.

    Between the device and NVMe both offloads pass buffers in host memory, with DeepSpeed's default counts.
    """
    ranks = world.gpus_per_node
    weights = _share(_weights(shape, settings), world.nodes) if settings.stage == 3 else 0
    states = _share((_MASTER + settings.state_bytes) * shape.trainable, world.nodes)
    offload, params = settings.offload_optimizer, settings.offload_param
    swap = _SWAP_BUFFERS * 4 * min(settings.sub_group, _share(shape.trainable, world.size)) * ranks
    staged = min(_PARAM_BUFFERS * settings.parameter_bytes * ranks, weights)
    # Gradients: the buffer they add up in, and fp32 ones for the optimizer.
    gradients = _share((settings.accumulate_bytes + 4) * shape.trainable, world.nodes)
    whole_model = settings.stage < 3 or not settings.zero_init
    return HostMemory(
        parameters={"none": 0, "cpu": weights, "nvme": staged}[params],
        gradients=gradients if offload != "none" else 0,
        optimizer={"none": 0, "cpu": states, "nvme": min(swap, states)}[offload],
        secondary=0 if params == "none" else secondary_bytes(shape, settings, world) * ranks,
        initial=(4 * shape.parameters if whole_model else 4 * (shape.largest_layer or 0)) * ranks,
        nvme=(states if offload == "nvme" else 0) + (weights if params == "nvme" else 0),
    )
