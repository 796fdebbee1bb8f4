"""Settings that fit a model, and what to know of them before taking them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.estimate.memory import HostMemory, MemoryPerGpu
    from orchestrator.estimate.settings import Settings
    from orchestrator.estimate.speed import StepTime

LOSSY = {
    "quantized_weights": "weights are gathered in 8 bits (qwZ)",
    "quantized_gradients": "gradients are reduced in 4 bits (qgZ)",
}
"""Settings that change the training's numbers, and how."""
_FIELDS = {  # of Settings: the job file's
    "stage": "zero_stage",
    "offload_optimizer": "offload_optimizer",
    "offload_param": "offload_param",
    "hpz": "hpz",
    "quantized_weights": "quantized_weights",
    "quantized_gradients": "quantized_gradients",
    "micro_batch": "micro_batch_per_gpu",
    "accumulation": "gradient_accumulation_steps",
}


@dataclass(frozen=True)
class Candidate:
    """Settings that fit.

    Attributes:
        settings: all of them.
        base: those of the job file, which they are compared with.
        gpu: memory of one GPU.
        host: memory of one host.
        time: of one optimizer step.
        between: bytes that one host sends to others in a step.
        lossy: what changes the training's numbers, in words; empty for settings that do not.
        notes: what to know before taking it, what could not be checked.
        slots: ranks of one host.
    """

    settings: Settings
    base: Settings
    gpu: MemoryPerGpu
    host: HostMemory
    time: StepTime
    between: int
    lossy: tuple[str, ...]
    notes: tuple[str, ...]
    slots: int

    @property
    def changed(self) -> bool:
        """Return whether this is anything else than the job file's own settings."""
        return bool(self.fields())

    @property
    def why(self) -> str:
        """Return in a line what is turned on and what decides on its time."""
        parts = [f"ZeRO-{self.settings.stage}", *features(self.settings)]
        if self.settings.micro_batch is not None:
            parts.append(f"micro-batch {self.settings.micro_batch} x {self.settings.accumulation}")
        if self.time.total is not None:
            parts.append(f"{self.time.total:.3g} s a step, {self.time.bound} decides")
        return ", ".join(parts)

    @property
    def new_losses(self) -> tuple[str, ...]:
        """Return what of `lossy` the job file does not say already."""
        return tuple(
            words
            for name, words in LOSSY.items()
            if getattr(self.settings, name) and not getattr(self.base, name)
        )

    def fields(self) -> dict[str, Any]:
        """Return what has to change in the job file: key path to value, such as `deepspeed.hpz`: `node`."""
        changes = {
            key: getattr(self.settings, name)
            for name, key in _FIELDS.items()
            if getattr(self.settings, name) != getattr(self.base, name)
        }
        if changes.get("hpz") == self.slots and self.slots > 1:
            changes["hpz"] = "node"
        return {f"deepspeed.{key}": value for key, value in changes.items()}

    def to_json(self) -> dict[str, Any]:
        """Return it for `json.dumps`: changed fields, memory, time, traffic, and what to know."""
        return {
            "fields": self.fields(),
            "why": self.why,
            "settings": asdict(self.settings),
            "gpu_memory": self.gpu.to_json(),
            "host_memory": self.host.to_json(),
            "step_time": self.time.to_json(),
            "between_hosts": self.between,
            "lossy": list(self.lossy),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Dropped:
    """Settings that were tried and left out, and the reason."""

    settings: Settings
    reason: str


@dataclass(frozen=True)
class Suggestions:
    """What fits, the best first, and what was left out."""

    ranked: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]


def features(settings: Settings) -> list[str]:
    """Return what of offload and ZeRO++ is on, in words."""
    offload = {settings.offload_optimizer: "optimizer", settings.offload_param: "parameters"}
    on = [f"{what} on {where}" for where, what in offload.items() if where != "none"]
    if settings.offload_optimizer == settings.offload_param != "none":
        on = [f"optimizer and parameters on {settings.offload_param}"]
    names = {"hpZ": settings.hpz > 1, "qwZ": settings.quantized_weights, "qgZ": settings.quantized_gradients}
    return on + [name for name, is_on in names.items() if is_on]
