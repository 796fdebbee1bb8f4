"""Values that a DeepSpeed file calls `auto`: what we put there, and what is left for the training script.

Source: `Accelerator._prepare_deepspeed` and `DeepSpeedPlugin` of Accelerate 1.15, `HfTrainerDeepSpeedConfig`
of transformers 5. DeepSpeed reads a few `auto` of its own; of the others it takes some for a key that is not
there, and fails at the rest in every rank. Accelerate's prepare refuses every one that it does not fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.configs.batch import GLOBAL, MICRO, STEPS
from orchestrator.configs.fields import ZERO
from orchestrator.configs.merge import leaves, section_at
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.configs.merge import KeyPath, Origins

_LAUNCH: dict[KeyPath, Any] = {  # what `accelerate launch` fills from its own defaults, and no script does
    (ZERO, "stage"): 2,
    (ZERO, "offload_optimizer", "device"): "none",
    (ZERO, "offload_param", "device"): "none",
    (ZERO, "offload_optimizer", "nvme_path"): None,
    (ZERO, "offload_param", "nvme_path"): None,
    (ZERO, "stage3_gather_16bit_weights_on_model_save"): False,
}
_DEFAULTS: dict[KeyPath, Any] = {  # Accelerate's defaults for what scripts fill
    (STEPS,): 1,
    ("gradient_clipping",): 1.0,
    ("fp16", "enabled"): False,
    ("bf16", "enabled"): False,
    ("scheduler", "params", "warmup_min_lr"): 0,
}
_BY_SIZE: dict[KeyPath, Callable[[int], int]] = {
    (ZERO, "reduce_bucket_size"): lambda hidden: hidden * hidden,
    (ZERO, "stage3_prefetch_bucket_size"): lambda hidden: int(0.9 * hidden * hidden),
    (ZERO, "stage3_param_persistence_threshold"): lambda hidden: 10 * hidden,
}
_BATCH: frozenset[KeyPath] = frozenset({(GLOBAL,), (MICRO,)})
_ACCELERATE: frozenset[KeyPath] = frozenset(
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
_TRAINER: frozenset[KeyPath] = frozenset({("optimizer", "params", "betas"), ("optimizer", "params", "eps")})
"""What HF Trainer fills besides, whatever starts it, before it calls Accelerate's prepare."""
_OWN = (  # DeepSpeed's own meaning of auto, or no meaning that we know: the path begins like one of these
    ("autotuning",),
    ("data_types", "keep_in_fp32_modules"),
    ("expert_parallel",),
    ("pipeline", "stages"),
    (ZERO, "zenflow"),
)


@dataclass(frozen=True)
class Autos:
    """Who fills `auto`.

    Attributes:
        mode: `resolve` fills all here; `script` leaves to the script what it can fill.
        launcher: the training launcher: with accelerate, the script calls Accelerate's prepare.
        hidden_size: of the model, where it is known.
        origins: where the values come from.
    """

    mode: Literal["resolve", "script"]
    launcher: str
    hidden_size: int | None
    origins: Origins

    def by_script(self, path: KeyPath) -> bool:
        """Return whether the script is to fill this value."""
        return self.mode == "script" and path in _ACCELERATE | _TRAINER

    def by_deepspeed(self, path: KeyPath) -> bool:
        """Return whether DeepSpeed itself reads `auto` here, and gets to see it."""
        own = any(path[: len(start)] == start for start in _OWN)
        return own and not (self.mode == "script" and self.launcher == "accelerate")


def resolve(config: dict[str, Any], autos: Autos) -> Iterator[Problem]:
    """Fill every `auto` of the configuration that is not the script's; yield a note for each.

    What cannot be filled stays; `unfilled` names it.
    """
    for path in remaining(config, autos):
        found = _NOTHING if autos.by_script(path) else _value(path, autos)
        if found is _NOTHING:
            continue
        section = section_at(config, path)
        section[path[-1]] = found
        if found is None:
            del section[path[-1]]
        how = f" (hidden size {autos.hidden_size})" if path in _BY_SIZE else ", Accelerate's default"
        what = f"{'.'.join(path)} was auto and is {'left out' if found is None else repr(found)} now{how}"
        yield Problem(what, autos.origins.where(path))


_NOTHING = object()


def _value(path: KeyPath, autos: Autos) -> Any:
    if path in _BY_SIZE:
        return _NOTHING if autos.hidden_size is None else _BY_SIZE[path](autos.hidden_size)
    path = ("bf16", *path[1:]) if path[0] == "bfloat16" else path
    return _LAUNCH.get(path, _DEFAULTS.get(path, _NOTHING))


def remaining(config: dict[str, Any], autos: Autos) -> list[KeyPath]:
    """Return the paths of what is still `auto` and is not DeepSpeed's own."""
    return [path for path, value in leaves(config) if value == "auto" and not autos.by_deepspeed(path)]


def unfilled(config: dict[str, Any], autos: Autos) -> Iterator[Problem]:
    """Yield an error for each `auto` that nobody fills."""
    for path in remaining(config, autos):
        if not autos.by_script(path):
            where = "deepspeed.micro_batch_per_gpu" if path in _BATCH else autos.origins.where(path)
            yield Problem(f"{'.'.join(path)} is auto and nobody fills it", where, "auto", _fix(path, autos))


def for_trainer_alone(config: dict[str, Any], autos: Autos) -> Iterator[Problem]:
    """Yield a warning for each `auto` that HF Trainer fills and Accelerate's own prepare refuses."""
    for path in remaining(config, autos):
        if path in _TRAINER and autos.mode == "script":
            what = f"{'.'.join(path)} is auto, which only HF Trainer fills: Accelerate's prepare refuses it"
            fix = "write a value, unless the script uses Trainer"
            yield Problem(what, autos.origins.where(path), "auto", fix)


def _fix(path: KeyPath, autos: Autos) -> str:
    script = "or auto: script under deepspeed, if the script fills it (Accelerate's prepare, HF Trainer)"
    if any(path[: len(start)] == start for start in _OWN):
        return "remove it: auto is DeepSpeed's default, and Accelerate's prepare refuses the word"
    if autos.mode == "script":
        return "write a value, or remove it: neither Accelerate's prepare nor HF Trainer fills this one"
    if path in _BATCH:
        return f"add micro_batch_per_gpu, {script}"
    if path in _BY_SIZE:
        return f"write a number, or the model's width as model.hidden_size, {script}"
    return f"write a value, {script}" if path in _ACCELERATE | _TRAINER else "write a value, or remove it"
