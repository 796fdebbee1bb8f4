"""What ZeRO sends in one optimizer step: between hosts, and between the GPUs of a host.

With M the bytes of all weights and g micro-steps, stage 3 gathers M in forward and in backward of each
micro-step and reduces M of gradients: 3gM. hpZ gathers M between hosts once a step, by the first forward, and
everything else inside its groups: (1+g)M. qwZ halves what is gathered, qgZ quarters what is reduced:
(0.5+0.25g)M for all three (arXiv 2306.10209; DeepSpeed's blogs/zeropp). What `stage3_max_reuse_distance`
keeps for backward is not gathered again, and weights below `stage3_param_persistence_threshold` are gathered
once, after the step. The first step gathers all of them, as it only records their order. Scales of quantized
weights, 4 bytes for some 4,000 to 16,000 elements, are left out: under 0.1 %.

Stages 1 and 2 gather M after the step. They reduce by all-reduce, twice the bytes of a reduce-scatter, stage
2 in every micro-step (`stage_1_and_2.py`: `average_tensor`, `use_multi_rank_bucket_allreduce`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.estimate.reuse import gathers_in_backward, kept_elements, persistent_elements

if TYPE_CHECKING:
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape

_ALL_REDUCE = 2  # a reduce-scatter and an all-gather
_INT8 = 1
_INT4 = 2  # elements a byte


@dataclass(frozen=True)
class Volume:
    """Bytes of one optimizer step, by what they are for.

    Attributes:
        forward_gather: weights for forward.
        backward_gather: weights for backward, recomputation included.
        reduce: gradients.
        update_gather: weights after the optimizer's step.
    """

    forward_gather: int = 0
    backward_gather: int = 0
    reduce: int = 0
    update_gather: int = 0

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.forward_gather + self.backward_gather + self.reduce + self.update_gather

    def from_others(self, parts: int) -> Volume:
        """Return what of it comes from elsewhere when it lies on so many hosts or ranks in equal parts."""
        return Volume(
            self.forward_gather * (parts - 1) // parts,
            self.backward_gather * (parts - 1) // parts,
            self.reduce * (parts - 1) // parts,
            self.update_gather * (parts - 1) // parts,
        )

    def plus(self, other: Volume) -> Volume:
        """Return the sum of two volumes, part by part."""
        return Volume(
            self.forward_gather + other.forward_gather,
            self.backward_gather + other.backward_gather,
            self.reduce + other.reduce,
            self.update_gather + other.update_gather,
        )


@dataclass(frozen=True)
class Traffic:
    """What one optimizer step sends.

    Attributes:
        world: bytes of the collectives over all ranks: what each gathers or reduces (an all-reduce counts
            twice).
        group: bytes of those inside hpZ groups.
        between: between hosts, for one host, one direction: the least that has to cross.
        ring: the same when collectives go round all ranks in a ring, as NCCL's do: (N-1)/N in place of
            (n-1)/n of what N ranks on n hosts gather.
        inside: between the GPUs of a host, for one GPU, one direction.
        nodes: number of hosts.
    """

    world: Volume
    group: Volume
    between: Volume
    ring: Volume
    inside: Volume
    nodes: int

    @property
    def total(self) -> int:
        """Return the bytes between all hosts together, one direction."""
        return self.between.total * self.nodes

    def to_json(self) -> dict[str, Any]:
        """Return all volumes in bytes, with their sums."""
        names = ("world", "group", "between", "ring", "inside")
        volumes = {name: getattr(self, name) for name in names}
        return {name: asdict(each) | {"total": each.total} for name, each in volumes.items()} | {
            "nodes": self.nodes,
            "total": self.total,
        }


def traffic(shape: ModelShape, settings: Settings, world: World) -> Traffic:
    """Return what one optimizer step sends, in bytes.

    Tensors are padded to the number of ranks where they are known (`ModelShape.tensors`).
    """
    quantized = settings.quantizes_gradients(world)
    every, group = _collectives(shape, settings, world)
    gradients = _quantized_gradients(shape, settings, world) if quantized else Volume()
    hosts, size = world.nodes, settings.hpz_group(world)
    spread = -(-size // world.gpus_per_node)  # hosts that one hpZ group lies on: 1 where it should
    between = every.from_others(hosts).plus(group.from_others(spread))
    # A ring crosses from host to host with what each rank passes on to the next.
    ring_of_all, ring_of_group = world.size if hosts > 1 else 1, size if spread > 1 else 1
    ring = every.from_others(ring_of_all).plus(group.from_others(ring_of_group))
    local = every.from_others(world.size if world.gpus_per_node > 1 else 1).plus(group.from_others(size))
    hop = gradients.from_others(hosts)
    return Traffic(
        every.plus(gradients),
        group,
        between.plus(hop),
        ring.plus(hop),
        local.plus(gradients.from_others(world.gpus_per_node)),
        hosts,
    )


def _collectives(shape: ModelShape, settings: Settings, world: World) -> tuple[Volume, Volume]:
    """Return the bytes of the collectives over all ranks and of those inside hpZ groups, qgZ's left out."""
    if world.size == 1:
        return Volume(), Volume()
    if settings.stage < 3:
        return _replicated(shape, settings), Volume()
    forward, backward, update = _gathers(shape, settings, world)
    gradients = _padded(shape, world) * shape.trainable // shape.parameters * settings.reduce_bytes
    reduce = gradients * settings.accumulation
    if settings.quantizes_gradients(world):
        reduce = _unquantized(shape, settings, world)
    steps = settings.accumulation
    if settings.hpz_group(world) == 1:
        return Volume(forward * steps, backward * steps, reduce, update), Volume()
    # The secondary copy of trained weights lives to the end of the step, that of frozen ones for good.
    first = forward * shape.trainable // shape.parameters
    return Volume(first, 0, reduce, update), Volume(forward * steps - first, backward * steps)


def _replicated(shape: ModelShape, settings: Settings) -> Volume:
    """Return the bytes of stages 0 to 2, where every rank has all weights."""
    gradients = shape.trainable * settings.reduce_bytes
    times = settings.accumulation if settings.stage == 2 else 1
    to_owner = settings.stage == 2 and settings.reduce_scatter and not settings.multi_rank_allreduce
    reduce = gradients * times * (1 if to_owner else _ALL_REDUCE)
    update = 0 if settings.stage == 0 else shape.trainable * settings.parameter_bytes
    return Volume(reduce=reduce, update_gather=update)


def _gathers(shape: ModelShape, settings: Settings, world: World) -> tuple[int, int, int]:
    """Return the bytes gathered in one forward, in one backward and after the step, in stage 3."""
    whole = _padded(shape, world)
    large = _padded(shape, world, above=settings.persistence_threshold)
    cut = shape.parameters - persistent_elements(shape, settings)
    again = large * max(0, cut - kept_elements(shape, settings)) // max(1, cut)
    numerator, denominator = _gathered_bytes(shape, settings)
    if shape.is_inference:
        return large * numerator // denominator, 0, 0
    backward = again * gathers_in_backward(shape, settings)
    after = (whole - large) * settings.parameter_bytes
    return large * numerator // denominator, backward * numerator // denominator, after


def _gathered_bytes(shape: ModelShape, settings: Settings) -> tuple[int, int]:
    """Return the bytes of a gathered element, as a fraction: frozen ones alone may be in 8 bits."""
    if settings.quantized_weights:
        return _INT8, 1
    if not settings.quantized_nontrainable:
        return settings.parameter_bytes, 1
    return settings.parameter_bytes * shape.trainable + _INT8 * shape.frozen, shape.parameters


def _padded(shape: ModelShape, world: World, above: int = -1) -> int:
    """Return the elements of all tensors larger than `above`, each padded to a multiple of the ranks."""
    if shape.tensors is None:
        return shape.parameters
    return sum(-(-size // world.size) * world.size * count for size, count in shape.sizes if size > above)


def _fits(size: int, world: World) -> bool:
    """Return whether qgZ quantizes a tensor of this size (`all_to_all_quant_reduce`)."""
    return size % (2 * world.size) == 0


def _unquantized(shape: ModelShape, settings: Settings, world: World) -> int:
    """Return the bytes of gradients that qgZ leaves to a reduce-scatter, in one optimizer step."""
    left = sum(size * count for size, count in shape.sizes if not _fits(size, world))
    return left * shape.trainable // shape.parameters * settings.reduce_bytes * settings.accumulation


def _quantized_gradients(shape: ModelShape, settings: Settings, world: World) -> Volume:
    """Return the bytes of gradients that go in 4 bits, in one optimizer step."""
    fit = shape.parameters
    if shape.tensors is not None:
        fit = sum(size * count for size, count in shape.sizes if _fits(size, world))
    elements = fit * shape.trainable // shape.parameters
    return Volume(reduce=elements // _INT4 * settings.accumulation)
