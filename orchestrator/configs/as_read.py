"""Switches and counts as DeepSpeed's pydantic classes read them: `"true"`, `"8"` and `8.0` are what they say.

Estimates and rules look at the configuration too, and would take `"8"` for no hpZ at all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchestrator.configs.fields import ZERO
from orchestrator.configs.merge import leaves, section_at
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.configs.merge import KeyPath, Origins

_SWITCHES = frozenset(
    {
        "contiguous_gradients",
        "cpu_offload",
        "cpu_offload_param",
        "overlap_comm",
        "pin_memory",
        "reduce_scatter",
        "stage3_gather_16bit_weights_on_model_save",
        "use_multi_rank_bucket_allreduce",
        "zero_quantized_gradients",
        "zero_quantized_nontrainable_weights",
        "zero_quantized_weights",
    }
)
_COUNTS = frozenset({"stage", "zero_hpz_partition_size"})
_WORDS = {  # pydantic 2, in any case
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def as_read(config: dict[str, Any], origins: Origins) -> Iterator[Problem]:
    """Turn what DeepSpeed reads as a switch or a count into one; yield a warning where it was text.

    Source: `DeepSpeedZeroConfig`, `DeepSpeedBF16Config` and `DeepSpeedFP16Config` of DeepSpeed 0.19.8;
    `read_zero_config_deprecated` for a zero_optimization that is true.

    Args:
        config: the configuration, which is changed.
        origins: where the values come from.
    """
    if isinstance(config.get(ZERO), bool):
        stage = int(config[ZERO])
        what = f"{ZERO} is true or false, an old format: DeepSpeed takes it for stage {stage}"
        place = origins.where((ZERO,))
        yield Problem(what, place, json.dumps(config[ZERO]), f"write {ZERO}: {{stage: {stage}}}")
        config[ZERO] = {"stage": stage}
    for path, value in list(leaves(config)):
        read = _read(path, value)
        if read is None:
            continue
        section_at(config, path)[path[-1]] = read
        if isinstance(value, str):
            what = f"{'.'.join(path)} is text, which DeepSpeed takes for {json.dumps(read)}"
            yield Problem(what, origins.where(path), json.dumps(value), f"write {json.dumps(read)}")


def _read(path: KeyPath, value: Any) -> bool | int | None:
    """Return what DeepSpeed makes of a value; None for what stays as it is."""
    is_switch = path[0] == ZERO and path[-1] in _SWITCHES
    if is_switch or (path[0] in ("fp16", "bf16", "bfloat16") and path[1:] == ("enabled",)):
        return None if isinstance(value, bool) else _WORDS.get(str(value).removesuffix(".0").lower())
    if len(path) != 2 or path[0] != ZERO or path[1] not in _COUNTS:
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return int(value) if isinstance(value, bool | float) and value % 1 == 0 else None
