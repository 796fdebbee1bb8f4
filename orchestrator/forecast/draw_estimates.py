"""Memory, traffic and checkpoints on the screen."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from orchestrator.estimate import gpu_memory
from orchestrator.estimate.suggest import HEADROOM
from orchestrator.forecast.style import plain
from orchestrator.forecast.words import bandwidth, bar, columns, count, memory, number, seconds, volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.estimate import HostMemory, MemoryPerGpu, StepTime
    from orchestrator.forecast.estimates import Estimates, Variant
    from orchestrator.forecast.style import Style

_UNKNOWN = "?"


def model_lines(made: Estimates, took: float | None = None) -> Iterator[str]:
    """Yield the model's size and where it was found; `took` are the seconds that reading it took."""
    shape = made.shape
    parts = [f"{count(shape.parameters)} parameters"]
    if shape.trainable != shape.parameters:
        parts.append(f"{'none' if shape.is_inference else count(shape.trainable)} of them trained")
    if shape.active_parameters is not None:
        parts.append(f"{count(shape.active_parameters)} for each token")
    if shape.largest_layer is not None:
        parts.append(f"largest layer {count(shape.largest_layer)}")
    yield ", ".join(parts)
    known = {
        "{} layers": shape.layers,
        "width {}": shape.hidden_size,
        "vocabulary {}": shape.vocabulary,
        "samples of {} tokens": shape.sequence_length,
    }
    sizes = [text.format(number(value)) for text, value in known.items() if value]
    if sizes:
        yield ", ".join(sizes)
    yield f"from {shape.source}" + (f", read in {took:.1f} s" if took else "")


def memory_lines(made: Estimates, style: Style = plain) -> Iterator[str]:
    """Yield the memory of a GPU and of a host side by side, and DeepSpeed's own figures below."""
    gpu, host = list(_gpu_rows(made.gpu, trains=not made.shape.is_inference)), list(_host_rows(made.host))
    ranks = made.world.gpus_per_node
    head = ["of a GPU", "GiB", "", f"of a host ({ranks} {'rank' if ranks == 1 else 'ranks'})", "GiB"]
    empty = ("", "")
    rows = [[*left, "", *right] for left, right in zip_longest(gpu, host, fillvalue=empty)]
    yield from columns([head, *rows], right=frozenset({1, 4}))
    yield _fit("GPU", made.gpu.total, made.hardware.gpu_memory, style)
    if made.fits_gpu is False and not made.settings.recompute and made.gpu.activations is not None:
        less = gpu_memory(made.shape, replace(made.settings, recompute=True), made.world).total
        yield f"with recomputation of activations (model.recompute, in the script): {memory(less)}"
    if made.host.total or made.hardware.host_memory is not None:
        yield _fit("host", made.host.total, made.hardware.host_memory, style)
    if made.states is not None:
        said = f"{memory(made.states.gpu)} a GPU, {memory(made.states.host)} a host"
        as_if = ", all trained" if made.shape.frozen else ""
        yield f"DeepSpeed's own estimate, of states alone: {said}{as_if}"


def _gpu_rows(gpu: MemoryPerGpu, *, trains: bool) -> Iterator[tuple[str, str]]:
    update = trains and gpu.update > gpu.backward
    yield "parameters", _gib(gpu.parameters)
    if trains:
        yield "gradients", _aside(gpu.gradients, aside=not (update or gpu.early))
        yield "optimizer", _gib(gpu.optimizer)
    if gpu.secondary:
        yield "hpZ secondary copy", _gib(gpu.secondary)
    if gpu.live:
        yield "gathered weights", _aside(gpu.live, aside=update)
    # Below stage 3 the buckets take the place of the logits.
    instead = not gpu.early and gpu.buffers > (gpu.logits or 0)
    if trains or gpu.buffers:
        yield "buffers", _aside(gpu.buffers, aside=not gpu.early and (update or not instead))
    yield "activations", _aside(gpu.activations, aside=update)
    yield "logits", _aside(gpu.logits, aside=update or instead)
    if update:
        yield "gradients in fp32", _gib(gpu.step)
    at_least = "at least, " if gpu.missing else ""
    when = ("step" if update else "backward") if trains else "forward"
    yield f"peak ({at_least}in {when})", _gib(gpu.total)


def _host_rows(host: HostMemory) -> Iterator[tuple[str, str]]:
    making = host.initial > host.training
    parts = {
        "parameters": host.parameters,
        "gradients": host.gradients,
        "optimizer": host.optimizer,
        "hpZ secondary copy": host.secondary,
    }
    for name, size in parts.items():
        if size:
            yield name, _aside(size, aside=making)
    if host.initial:
        yield "while the model is made", _aside(host.initial, aside=not making)
    yield "peak", _gib(host.total)
    if host.nvme:
        yield "on NVMe", _gib(host.nvme)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f}"


def _aside(size: int | None, *, aside: bool) -> str:
    """Return a size; in brackets when it is no part of the peak."""
    if size is None:
        return _UNKNOWN
    return f"({_gib(size)})" if aside else f"{_gib(size)}"


def _fit(what: str, needs: int, has: int | None, style: Style) -> str:
    if has is None:
        return f"{what:<5} {memory(needs)}; what a {what} has is not known"
    head = f"{what:<5} {memory(needs)} of {memory(has)}  {bar(needs, has, 20)}  "
    if needs > has:
        return head + style(f"does not fit: {memory(needs - has)} too much", "bad")
    if needs > HEADROOM * has:
        return head + style("tight: CUDA and NCCL come on top", "mark")
    return head + style("fits", "good")


def traffic_lines(made: Estimates, style: Style = plain) -> Iterator[str]:
    """Yield what one host sends to others in a step, with each feature of ZeRO++, and the time it takes."""
    if made.world.nodes == 1:
        yield "one host: nothing crosses a network"
        yield from _time_of_one(made.own.time)
        return
    rows = [["", "sent by a host", "weights", "gradients", "on the link", "step", "decided by"]]
    rows += [_variant_row(variant) for variant in made.variants]
    known = [made.own.time.network, made.own.time.total]
    cut = 4 if known == [None, None] else 5 if known[1] is None else len(rows[0])
    rows = [row[:cut] for row in rows]
    lines = columns(rows, right=frozenset({1, 2, 3, 4, 5}))
    yield lines[0]
    for variant, line in zip(made.variants, lines[1:], strict=True):
        yield style(line, "mark") if variant.own else line
    yield _basis(made)


def _variant_row(variant: Variant) -> list[str]:
    sent, time = variant.traffic.ring, variant.time
    gathered = sent.forward_gather + sent.backward_gather + sent.update_gather
    return [
        f"> {variant.name}" if variant.own else f"  {variant.name}",
        *(volume(sent.total), volume(gathered), volume(sent.reduce)),
        _UNKNOWN if time.network is None else seconds(time.network),
        _UNKNOWN if time.total is None else seconds(time.total),
        _UNKNOWN if time.total is None else time.bound.replace("_", " "),
    ]


def _basis(made: Estimates) -> str:
    hardware, own = made.hardware, made.own.time
    parts = ["> the job file"]
    if hardware.link is not None:
        parts.append(f"link {bandwidth(hardware.link)} a host")
    peak = hardware.peak(made.settings.precision)
    if own.compute is not None and peak is not None:
        reached = f"{hardware.efficiency:.0%} of {peak / 1e12:.4g} TFLOP/s"
        parts.append(f"arithmetic {seconds(own.compute)} a step at {reached}")
    return "; ".join(parts)


def _time_of_one(time: StepTime) -> Iterator[str]:
    if time.compute is not None and time.total is not None:
        yield f"step {seconds(time.total)}, decided by {time.bound.replace('_', ' ')}"


def checkpoint_lines(made: Estimates) -> Iterator[str]:
    """Yield a checkpoint's size and how often to save one."""
    size, cadence, hardware = made.checkpoint, made.cadence, made.hardware
    took = ""
    if hardware.storage is not None:
        took = f", written in {seconds(size / hardware.storage)} at {volume(hardware.storage)}/s"
    yield f"{volume(size)} each{took}"
    if cadence is None:
        return
    every = f"every {seconds(cadence.seconds)}"
    if cadence.steps is not None:
        every = f"every {number(cadence.steps)} steps ({seconds(cadence.seconds)})"
    yield f"best {every}: {cadence.goodput:.1%} of the time then goes into steps that count"
    yield (
        f"Young {seconds(cadence.young)}, Daly {seconds(cadence.daly)}: a failure every "
        f"{seconds(cadence.mtbf)} (one host: {seconds(hardware.host_mtbf or 0)}), "
        f"{seconds(hardware.restart_time)} to restart"
    )
