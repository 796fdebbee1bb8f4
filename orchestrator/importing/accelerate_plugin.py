"""DeepSpeed's configuration as the fields of `accelerate config`, without a JSON file.

Source: `DeepSpeedPlugin.__post_init__` and `set_mixed_precision` of Accelerate 1.15. What they make of the
fields is the configuration again, key by key; what they cannot make is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ZERO = "zero_optimization"
_FILLED = ("train_batch_size", "train_micro_batch_size_per_gpu")
_UNHEARD = ("steps_per_print",)
"""What Accelerate puts its own value in, whatever the file says."""
_DEFAULTS = {"wall_clock_breakdown": False, "dump_state": False, "memory_breakdown": False}
_OFFLOAD = ("offload_optimizer", "offload_param")
_SAVE = "stage3_gather_16bit_weights_on_model_save"
_PRECISION = {  # what stands in the file: mixed_precision
    "fp16": {"enabled": True, "auto_cast": True},
    "bf16": {"enabled": True},
}


@dataclass(frozen=True)
class Fields:
    """What Accelerate's fields can say of a configuration.

    Attributes:
        section: for `deepspeed_config` of Accelerate's file.
        mixed_precision: no, fp16 or bf16.
        unsaid: dotted keys that no field says.
    """

    section: dict[str, Any]
    mixed_precision: str
    unsaid: tuple[str, ...]


def as_fields(config: Mapping[str, Any]) -> Fields:
    """Return the fields from which Accelerate makes this configuration, as far as there are any.

    Batch sizes have none: with fields they are always `auto`, and come from the script's data loaders.

    Args:
        config: DeepSpeed's configuration, as in its file.
    """
    section: dict[str, Any] = {"gradient_accumulation_steps": 1}  # as with a file that does not say it
    zero = config.get(ZERO)
    left = [*_left_of_root(config, section), *_left_of_zero(zero if isinstance(zero, dict) else {}, section)]
    precision = next((kind for kind in _PRECISION if _is_on(config.get(kind))), "no")
    for kind in _PRECISION:
        left += _left_of_precision(kind, config.get(kind), wanted=kind == precision)
    # A value that is auto is what Accelerate takes without the field.
    return Fields({key: value for key, value in section.items() if value != "auto"}, precision, tuple(left))


def _is_on(section: Any) -> bool:
    return isinstance(section, dict) and section.get("enabled") is True


def _left_of_root(config: Mapping[str, Any], section: dict[str, Any]) -> Iterator[str]:
    """Take the keys of the first level that have a field; yield the others."""
    for key, value in config.items():
        if key == "gradient_accumulation_steps" or (key == "gradient_clipping" and value):
            section[key] = value  # a clipping of 0 would be left out, and DeepSpeed's default is 1
        elif key in _FILLED:
            yield from () if value == "auto" else (key,)
        elif key not in (ZERO, *_UNHEARD, *_PRECISION) and value not in (None, {}, _DEFAULTS.get(key)):
            yield key


def _left_of_zero(zero: Mapping[str, Any], section: dict[str, Any]) -> Iterator[str]:
    """Take the keys of the ZeRO section that have a field; yield the others."""
    section["zero_stage"] = zero.get("stage", 0)
    for key, value in zero.items():
        if key in _OFFLOAD:
            yield from _left_of_offload(key, value, section)
        elif key == _SAVE and isinstance(value, bool):
            section["zero3_save_16bit_model"] = value
        elif key == "leaf_module" and isinstance(value, dict) and value.keys() == {"classes"}:
            section["deepspeed_moe_layer_cls_names"] = ",".join(value["classes"])
        elif key != "stage":
            yield f"{ZERO}.{key}"


def _left_of_offload(name: str, value: Any, section: dict[str, Any]) -> Iterator[str]:
    """Take the device of one kind of offload; the folder Accelerate reads and never passes on."""
    if not isinstance(value, dict):
        return
    device = section[f"{name}_device"] = value.get("device") or "none"
    if device != "none":
        said = {key for key, inner in value.items() if inner is not None}
        yield from (f"{ZERO}.{name}.{key}" for key in value if key in said - {"device"})


def _left_of_precision(kind: str, value: Any, *, wanted: bool) -> Iterator[str]:
    """Yield what is not as Accelerate makes it: nothing for a section that is off."""
    made = _PRECISION[kind] if wanted else {"enabled": False}
    if not isinstance(value, dict) or (not wanted and value.get("enabled", False) is False):
        return
    yield from (f"{kind}.{key}" for key in {**value, **made} if value.get(key) != made.get(key))
