"""Which settings fit a model on these hosts, the fastest first.

Every stage, offload and ZeRO++ feature is tried, each with the largest micro-batch that fits; the samples of
an optimizer step stay what they are. Nothing is started: the numbers are those of `memory.py` and `speed.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from orchestrator.estimate.candidate import LOSSY, Candidate, Dropped, Suggestions, features
from orchestrator.estimate.memory import gpu_memory, host_memory
from orchestrator.estimate.speed import step_time
from orchestrator.estimate.traffic import traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.estimate.hardware import Hardware
    from orchestrator.estimate.memory import MemoryPerGpu
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape
    from orchestrator.estimate.speed import StepTime
    from orchestrator.job.deepspeed_spec import OffloadDevice

HEADROOM = 0.9
"""Part of the memory that a suggestion may fill: CUDA's context, NCCL and fragments take the rest."""
_ALIKE = 1.02
"""Step times closer than this count as equal: then the simpler settings come first."""


def suggest(
    shape: ModelShape, settings: Settings, world: World, hardware: Hardware, *, lossy: bool = True
) -> Suggestions:
    """Return the settings that fit, ranked by predicted step time, then by simplicity.

    Where step time cannot be told for lack of figures, bytes between hosts take its place.

    Args:
        shape: the model.
        settings: those of the job; everything that is not tried stays as it is there. `micro_batch` times
            `accumulation`, the samples of a rank in a step, is kept; a micro-batch that is not known stays
            so.
        world: the ranks.
        hardware: what they have; memory that is not known fits everything.
        lossy: whether to try quantized weights and gradients, which change the training's numbers.
    """
    ranked: list[Candidate] = []
    dropped: list[Dropped] = []
    choices = _choices(settings, world, hardware, lossy=lossy and not shape.is_inference)
    for choice in _for_inference(choices, hardware) if shape.is_inference else choices:
        reason = _forbidden(choice, world, hardware)
        fitting = None if reason else _largest_fitting(shape, choice, world, hardware)
        if fitting is None:
            smallest = _with_micro_batch(choice, 1)
            dropped.append(Dropped(smallest, reason or _shortage(shape, smallest, world, hardware)))
        else:
            ranked.append(_candidate(shape, fitting, settings, world, hardware))
    timed = all(each.time.total is not None for each in ranked)
    ranked.sort(key=lambda each: _rank(each, timed=timed))
    return Suggestions(tuple(ranked), tuple(dropped))


def _choices(settings: Settings, world: World, hardware: Hardware, *, lossy: bool) -> Iterator[Settings]:
    """Yield settings to try, what DeepSpeed would ignore (hpZ below stage 3) left out."""
    plain = replace(settings, hpz=1, quantized_weights=False, quantized_gradients=False, offload_param="none")
    devices: tuple[OffloadDevice, ...] = ("none", "cpu", "nvme") if hardware.nvme else ("none", "cpu")
    for stage, optimizer in product((1, 2), devices[:2]):
        yield replace(plain, stage=stage, offload_optimizer=optimizer, quantized_nontrainable=False)
    groups = sorted({1, world.gpus_per_node, max(settings.hpz, 1)}) if world.nodes > 1 else [1]
    quantized = (False, True) if lossy and world.nodes > 1 else (False,)
    offloads = [pair for pair in product(devices, devices) if "none" not in pair[:1] or pair[1] == "none"]
    for (optimizer, param), hpz, weights, gradients in product(offloads, groups, quantized, quantized):
        yield replace(
            settings,
            stage=3,
            offload_optimizer=optimizer,
            offload_param=param,
            hpz=hpz,
            quantized_weights=weights,
            quantized_gradients=gradients,
        )


def _for_inference(choices: Iterator[Settings], hardware: Hardware) -> Iterator[Settings]:
    """Yield what is for weights alone: DeepSpeed 0.19.8 infers with stage 3 only (`runtime/engine.py`)."""
    devices: tuple[OffloadDevice, ...] = ("none", "cpu", "nvme") if hardware.nvme else ("none", "cpu")
    for choice in choices:
        if choice.stage == 3 and choice.offload_optimizer == choice.offload_param == "none":
            yield from (replace(choice, offload_param=device) for device in devices)


def _forbidden(settings: Settings, world: World, hardware: Hardware) -> str:
    """Return why these settings must not be run, "" if they may."""
    quantized = settings.quantized_weights or settings.quantized_gradients
    if quantized and hardware.device == "cpu":
        return "quantized weights and gradients need CUDA: DeepSpeed has no quantizer for the CPU"
    if quantized and settings.precision == "fp32":
        return "quantized weights and gradients are made for 16-bit training"
    if settings.quantized_gradients and not settings.reduce_scatter:
        return "quantized gradients need reduce_scatter"
    if settings.hpz > 1 and settings.offload_param != "none":
        return "hpZ with offloaded parameters: losses that stand still are reported (DeepSpeed #6926)"
    if settings.quantized_gradients and world.gpus_per_node == 1:
        return "quantized gradients gain nothing with one GPU a host"
    return ""


def _largest_fitting(
    shape: ModelShape, settings: Settings, world: World, hardware: Hardware
) -> Settings | None:
    """Return the settings with the largest micro-batch that fits, or None.

    Memory grows with it, but for the largest: in a single micro-step gradients and hpZ's copy come late.
    """
    if settings.micro_batch is None:
        return None if _shortage(shape, settings, world, hardware) else settings
    *sizes, whole = _divisors(settings.micro_batch * settings.accumulation)
    if not _shortage(shape, _with_micro_batch(settings, whole), world, hardware):
        return _with_micro_batch(settings, whole)
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        if _shortage(shape, _with_micro_batch(settings, sizes[middle]), world, hardware):
            high = middle
        else:
            low = middle + 1
    return _with_micro_batch(settings, sizes[low - 1]) if low else None


def _divisors(number: int) -> list[int]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return sorted({*small, *(number // each for each in small)})


def _with_micro_batch(settings: Settings, size: int) -> Settings:
    if settings.micro_batch is None:
        return settings
    samples = settings.micro_batch * settings.accumulation
    return replace(settings, micro_batch=size, accumulation=samples // size)


def _shortage(shape: ModelShape, settings: Settings, world: World, hardware: Hardware) -> str:
    """Return in words which memory is too small, "" if all that is known suffices."""
    needs = gpu_memory(shape, settings, world).total
    if hardware.gpu_memory is not None and needs > HEADROOM * hardware.gpu_memory:
        return f"needs {needs / 1e9:.1f} GB on a GPU of {hardware.gpu_memory / 1e9:.1f} GB"
    needs = host_memory(shape, settings, world).total
    if hardware.host_memory is not None and needs > HEADROOM * hardware.host_memory:
        return f"needs {needs / 1e9:.1f} GB on a host of {hardware.host_memory / 1e9:.1f} GB"
    return ""


def _candidate(
    shape: ModelShape, settings: Settings, base: Settings, world: World, hardware: Hardware
) -> Candidate:
    time = step_time(shape, settings, world, hardware)
    if settings.micro_batch is not None and base.micro_batch is not None:
        own = replace(settings, micro_batch=base.micro_batch, accumulation=base.accumulation)
        as_is = step_time(shape, own, world, hardware)
        fits = not _shortage(shape, own, world, hardware)
        if base.micro_batch < settings.micro_batch and _alike(as_is, time) and fits:
            settings, time = own, as_is
    gpu = gpu_memory(shape, settings, world)
    return Candidate(
        settings,
        base,
        gpu,
        host_memory(shape, settings, world),
        time,
        traffic(shape, settings, world).between.total,
        tuple(text for name, text in LOSSY.items() if getattr(settings, name)),
        tuple(_notes(settings, world, hardware, gpu)),
        world.gpus_per_node,
    )


def _alike(one: StepTime, other: StepTime) -> bool:
    """Return whether a larger micro-batch is not worth the memory."""
    return one.total is not None and other.total is not None and one.total <= _ALIKE * other.total


def _notes(settings: Settings, world: World, hardware: Hardware, gpu: MemoryPerGpu) -> Iterator[str]:
    quantized = settings.quantized_weights or settings.quantized_gradients
    if hardware.gpu_memory is None:
        yield "the GPU's memory is not known: nothing says that this fits"
    if gpu.missing:
        yield f"activations are not counted for lack of {', '.join(gpu.missing)}"
    if quantized and not hardware.device:
        yield "quantization needs CUDA"
    if settings.quantized_gradients and world.nodes % 2:
        yield "quantized gradients fall back or misbehave on odd numbers of hosts (DeepSpeed #5054, #4386)"
    if settings.offload_optimizer != "none" and hardware.host_memory is None:
        yield "the hosts' memory is not known: nothing says that the offload fits"


def _rank(candidate: Candidate, *, timed: bool) -> tuple[float, ...]:
    settings, seconds = candidate.settings, candidate.time.total
    depth = {"none": 0, "cpu": 1, "nvme": 2}
    simplicity = len(features(settings)) + depth[settings.offload_optimizer] + depth[settings.offload_param]
    slow = seconds if timed and seconds is not None else float(candidate.between)
    alike = round(math.log(slow, _ALIKE)) if slow > 0 else -math.inf
    return (alike, len(candidate.lossy), simplicity, settings.stage, settings.accumulation, slow)
