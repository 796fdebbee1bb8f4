"""Sizes in elements: whole numbers for DeepSpeed, whatever people and scripts write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHOLE = frozenset(  # bucket and buffer sizes: people write 5e8 or compute 0.9 * hidden², DeepSpeed wants int
    {
        "allgather_bucket_size",
        "buffer_count",
        "buffer_size",
        "max_in_cpu",
        "reduce_bucket_size",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_model_persistence_threshold",
        "stage3_module_granularity_threshold",
        "stage3_param_persistence_threshold",
        "stage3_prefetch_bucket_size",
        "sub_group_size",
    }
)


def round_sizes(section: Any, where: str = "zero_optimization") -> Iterator[Problem]:
    """Turn sizes that are written as floats into whole numbers; yield a note where that changes the value.

    DeepSpeed 0.19.8 refuses 3774873.6 (`0.9 * hidden_size²`, as many scripts compute it) in every rank.
    """
    for key, value in section.items() if isinstance(section, dict) else ():
        if isinstance(value, dict):
            yield from round_sizes(value, f"{where}.{key}")
        elif key in _WHOLE and isinstance(value, float):
            section[key] = round(value)
            if value != section[key]:
                what = f"{where}.{key} was rounded to {section[key]}: DeepSpeed takes whole numbers"
                yield Problem(what, "deepspeed", f"{value:.15g}", f"write {section[key]}")
