"""Sizes in elements: whole numbers for DeepSpeed, whatever people and scripts write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.configs.fields import ZERO
from orchestrator.configs.merge import leaves, section_at
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.configs.merge import Origins

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


def round_sizes(config: dict[str, Any], origins: Origins) -> Iterator[Problem]:
    """Turn sizes that are written as floats into whole numbers; yield a problem where that changes the value.

    DeepSpeed 0.19.8 refuses 3774873.6 (`0.9 * hidden_size²`, as many scripts compute it) in every rank.
    """
    for path, value in list(leaves(config)):
        if path[0] == ZERO and path[-1] in _WHOLE and isinstance(value, float):
            rounded = section_at(config, path)[path[-1]] = round(value)
            if value != rounded:
                what = f"{'.'.join(path)} was rounded to {rounded}: DeepSpeed takes whole numbers"
                yield Problem(what, origins.where(path), f"{value:.15g}", f"write {rounded}")
