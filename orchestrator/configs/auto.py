"""Values that a DeepSpeed file calls `auto`: what we put there, and what is left for the training script.

Source: `Accelerator._prepare_deepspeed` and `DeepSpeedPlugin` of Accelerate 1.15, `HfTrainerDeepSpeedConfig`
of transformers 5. DeepSpeed itself does not know `auto`; what is still there when it reads the configuration
fails in every rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.configs.fields import ZERO
from orchestrator.configs.merge import leaves, section_at
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Path = tuple[str, ...]
_LAUNCH: dict[Path, Any] = {  # what `accelerate launch` fills from its own defaults, and no script does
    (ZERO, "stage"): 2,
    (ZERO, "offload_optimizer", "device"): "none",
    (ZERO, "offload_param", "device"): "none",
    (ZERO, "offload_optimizer", "nvme_path"): None,
    (ZERO, "offload_param", "nvme_path"): None,
    (ZERO, "stage3_gather_16bit_weights_on_model_save"): False,
}
_DEFAULTS: dict[Path, Any] = {  # Accelerate's defaults for what scripts fill
    ("gradient_accumulation_steps",): 1,
    ("gradient_clipping",): 1.0,
    ("fp16", "enabled"): False,
    ("bf16", "enabled"): False,
    ("bfloat16", "enabled"): False,
    ("scheduler", "params", "warmup_min_lr"): 0,
}
_BY_SIZE: dict[Path, Callable[[int], int]] = {
    (ZERO, "reduce_bucket_size"): lambda hidden: hidden * hidden,
    (ZERO, "stage3_prefetch_bucket_size"): lambda hidden: int(0.9 * hidden * hidden),
    (ZERO, "stage3_param_persistence_threshold"): lambda hidden: 10 * hidden,
}
_BATCH: frozenset[Path] = frozenset({("train_batch_size",), ("train_micro_batch_size_per_gpu",)})
_ACCELERATE: frozenset[Path] = frozenset(
    {
        *_BATCH,
        *_BY_SIZE,
        *_DEFAULTS,
        ("optimizer", "params", "lr"),
        ("optimizer", "params", "weight_decay"),
        ("scheduler", "params", "warmup_max_lr"),
        ("scheduler", "params", "warmup_num_steps"),
        ("scheduler", "params", "total_num_steps"),
    }
)
_TRAINER: frozenset[Path] = frozenset({("optimizer", "params", "betas"), ("optimizer", "params", "eps")})
_OWN: frozenset[Path] = frozenset({("torch_autocast", "dtype")})
"""What DeepSpeed reads `auto` for itself."""


@dataclass(frozen=True)
class Autos:
    """Who fills `auto`.

    Attributes:
        mode: `resolve` fills all here; `script` leaves to the script what it can fill.
        launcher: the training launcher: with accelerate, the script uses Accelerate.
        hidden_size: of the model, where it is known.
    """

    mode: Literal["resolve", "script"]
    launcher: str
    hidden_size: int | None

    @property
    def by_script(self) -> frozenset[Path]:
        """Return what the script can fill."""
        if self.mode == "resolve":
            return frozenset()
        return _ACCELERATE if self.launcher == "accelerate" else _ACCELERATE | _TRAINER


def resolve(config: dict[str, Any], autos: Autos) -> Iterator[Problem]:
    """Fill every `auto` of the configuration that is not the script's; yield a note for each.

    What cannot be filled stays; `unfilled` names it.
    """
    for path, value in list(leaves(config)):
        if value != "auto" or path in autos.by_script or path in _OWN:
            continue
        found = _value(path, autos)
        if found is _NOTHING:
            continue
        section = section_at(config, path)
        if found is None:
            del section[path[-1]]
            continue
        section[path[-1]] = found
        how = f" (hidden size {autos.hidden_size})" if path in _BY_SIZE else ", Accelerate's default"
        yield Problem(f"{'.'.join(path)} was auto and is {found!r} now{how}", "deepspeed")


_NOTHING = object()


def _value(path: Path, autos: Autos) -> Any:
    if path in _BY_SIZE:
        return _NOTHING if autos.hidden_size is None else _BY_SIZE[path](autos.hidden_size)
    return _LAUNCH.get(path, _DEFAULTS.get(path, _NOTHING))


def remaining(config: dict[str, Any]) -> tuple[Path, ...]:
    """Return the paths of what is still `auto` and is not DeepSpeed's own."""
    return tuple(path for path, value in leaves(config) if value == "auto" and path not in _OWN)


def unfilled(config: dict[str, Any], autos: Autos) -> Iterator[Problem]:
    """Yield an error for each `auto` that nobody fills."""
    for path in remaining(config):
        if path not in autos.by_script:
            key = ".".join(path)
            yield Problem(f"{key} is auto and nobody fills it", _where(path), "auto", _fix(path, autos))


def _where(path: Path) -> str:
    return "deepspeed.micro_batch_per_gpu" if path in _BATCH else "deepspeed.config_file"


def _fix(path: Path, autos: Autos) -> str:
    if autos.mode == "script":
        who = (
            "Accelerate's prepare" if autos.launcher == "accelerate" else "Neither Accelerate nor HF Trainer"
        )
        does = "does not fill" if autos.launcher == "accelerate" else "fills"
        return f"write a value: {who} {does} this one"
    script = "or auto: script under deepspeed, if the script fills it (Accelerate's prepare, HF Trainer)"
    if path in _BATCH:
        return f"add micro_batch_per_gpu, {script}"
    if path in _BY_SIZE:
        return f"write a number, or the model's width as model.hidden_size, {script}"
    return f"write a value, {script}"
