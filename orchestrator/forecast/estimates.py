"""Everything that can be predicted of a job from its model, its settings, its ranks and its hardware."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import (
    checkpoint_bytes,
    deepspeed_model_states,
    gpu_memory,
    host_memory,
    plan_cadence,
    step_time,
    traffic,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.estimate import (
        Cadence,
        Hardware,
        HostMemory,
        MemoryPerGpu,
        ModelShape,
        ModelStates,
        Settings,
        StepTime,
        Traffic,
        World,
    )

_OFF: dict[str, Any] = {"hpz": 1, "quantized_weights": False, "quantized_gradients": False}


@dataclass(frozen=True)
class Variant:
    """One way to run the job, to compare its traffic with the others'.

    Attributes:
        name: what sets it apart: `ZeRO-3`, `+ hpZ`, `ZeRO-3 + qwZ + hpZ`.
        own: whether the job file says exactly this.
        settings: the job's, with ZeRO++ features switched.
        traffic: what one optimizer step sends, bytes.
        time: of one optimizer step, seconds.
    """

    name: str
    own: bool
    settings: Settings
    traffic: Traffic
    time: StepTime

    def to_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`, in bytes and seconds."""
        keys = ("stage", *_OFF)
        return {
            "name": self.name,
            "own": self.own,
            "settings": {key: getattr(self.settings, key) for key in keys},
            "traffic": self.traffic.to_json(),
            "step_time": self.time.to_json(),
        }


@dataclass(frozen=True)
class Estimates:
    """The predictions for one job.

    Attributes:
        shape: the model.
        settings: what the job file says.
        world: its ranks.
        hardware: what its hosts have.
        gpu: memory of one GPU.
        host: memory of one host.
        states: DeepSpeed's own estimate of model states; None where it has none.
        variants: the job's traffic and step time beside those with other ZeRO++ features.
        checkpoint: bytes of one checkpoint over all ranks.
        cadence: how often to save; None when failures or storage are not known.
    """

    shape: ModelShape
    settings: Settings
    world: World
    hardware: Hardware
    gpu: MemoryPerGpu
    host: HostMemory
    states: ModelStates | None
    variants: tuple[Variant, ...]
    checkpoint: int
    cadence: Cadence | None

    @property
    def own(self) -> Variant:
        """Return the variant that the job file says."""
        return next(each for each in self.variants if each.own)

    @property
    def fits_gpu(self) -> bool | None:
        """Return whether a GPU has the memory; None when its memory is not known."""
        return None if self.hardware.gpu_memory is None else self.gpu.total <= self.hardware.gpu_memory

    @property
    def fits_host(self) -> bool | None:
        """Return whether a host has the memory; None when its memory is not known."""
        return None if self.hardware.host_memory is None else self.host.total <= self.hardware.host_memory

    def to_json(self) -> dict[str, Any]:
        """Return all of it for `json.dumps`, in bytes and seconds."""
        shape = self.shape.to_json()
        tensors = shape.pop("tensors")
        return {
            "model": {**shape, "tensors": None if tensors is None else len(tensors)},
            "hardware": asdict(self.hardware),
            "memory": {
                "gpu": {
                    **self.gpu.to_json(),
                    "available": self.hardware.gpu_memory,
                    "fits": self.fits_gpu,
                },
                "host": {
                    **self.host.to_json(),
                    "available": self.hardware.host_memory,
                    "fits": self.fits_host,
                },
                "deepspeed_model_states": None if self.states is None else asdict(self.states),
            },
            "traffic": [variant.to_json() for variant in self.variants],
            "checkpoint": {
                "bytes": self.checkpoint,
                "cadence": None if self.cadence is None else self.cadence.to_json(),
            },
        }


def estimates(shape: ModelShape, settings: Settings, world: World, hardware: Hardware) -> Estimates:
    """Return the predictions for a job.

    Args:
        shape: its model.
        settings: what its DeepSpeed configuration says.
        world: its hosts and the ranks of each.
        hardware: what its hosts have; what is not known leaves times and fits unknown.
    """
    compared = tuple(
        Variant(
            name,
            each == settings,
            each,
            traffic(shape, each, world),
            step_time(shape, each, world, hardware),
        )
        for name, each in _compared(settings, world, trains=not shape.is_inference)
    )
    own = next(each for each in compared if each.own)
    return Estimates(
        shape,
        settings,
        world,
        hardware,
        gpu_memory(shape, settings, world),
        host_memory(shape, settings, world),
        None if shape.is_inference else deepspeed_model_states(shape, settings, world),
        compared,
        0 if shape.is_inference else checkpoint_bytes(shape, settings),
        None if shape.is_inference else plan_cadence(shape, settings, world, hardware, step=own.time.total),
    )


def _compared(settings: Settings, world: World, *, trains: bool) -> Iterator[tuple[str, Settings]]:
    """Yield the ways to run that are compared, by name: with each feature of ZeRO++, and the job's own."""
    plain = replace(settings, stage=3, **_OFF)
    group = settings.hpz if settings.stage == 3 and settings.hpz > 1 else world.gpus_per_node
    every: dict[str, Any] = {"hpz": group, "quantized_weights": True, "quantized_gradients": True}
    compared = [(stage_name(plain), plain)]
    if world.nodes > 1 and world.gpus_per_node > 1:
        compared.append(("+ hpZ", replace(plain, hpz=group)))
    if world.nodes > 1:
        compared.append(("+ qwZ", replace(plain, quantized_weights=True)))
    if world.nodes > 1 and trains:
        compared.append(("+ qgZ", replace(plain, quantized_gradients=True)))
        compared.append(("all of ZeRO++", replace(plain, **every)))
    own = next((i for i, (_, each) in enumerate(compared) if each == settings), None)
    if own is None:
        at = 0 if settings.stage < 3 else len(compared) - 1
        compared.insert(at, (stage_name(settings), settings))
    yield from compared


def stage_name(settings: Settings) -> str:
    """Return stage and ZeRO++ features of settings: `ZeRO-3 + hpZ 8 + qwZ`."""
    parts = [f"ZeRO-{settings.stage}" if settings.stage else "data parallel"]
    if settings.hpz > 1:
        parts.append(f"hpZ {settings.hpz}")
    parts += ["qwZ"] * settings.quantized_weights + ["qgZ"] * settings.quantized_gradients
    return " + ".join(parts)
