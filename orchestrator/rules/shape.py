"""Rules about keys and types: what DeepSpeed's own classes refuse in every rank, told without importing them.

`plan` asks the installed classes too, which takes seconds; `submit` has these rules alone.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from orchestrator.configs.versions import NEWEST, REMOVED, version_numbers
from orchestrator.errors import Problem
from orchestrator.rules.facts import ZERO, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_OFFLOAD = ("buffer_count", "device", "nvme_path", "pin_memory")
_SIZES = (
    *("max_live_parameters", "max_reuse_distance", "model_persistence_threshold"),
    *("module_granularity_threshold", "param_persistence_threshold", "prefetch_bucket_size"),
)
KEYS: dict[tuple[str, ...], frozenset[str]] = {
    (ZERO,): frozenset(
        (
            *("allgather_bucket_size", "allgather_partitions", "allgather_sequential", "compute_grad_norm"),
            *("contiguous_gradients", "cpu_offload", "cpu_offload_param", "cpu_offload_use_pin_memory"),
            *("elastic_checkpoint", "enable_sanity_checks", "gather_16bit_weights_on_model_save"),
            *("ignore_unused_parameters", "leaf_module", "legacy_stage1", "load_from_fp32_weights"),
            *("log_trace_cache_warnings", "memory_efficient_linear", "offload_optimizer", "offload_param"),
            *("overlap_comm", "override_module_apply", "parameter_alignment"),
            *("pipeline_loading_checkpoint", "reduce_bucket_size", "reduce_scatter", "round_robin_gradients"),
            *("save_muon_momentum_buffer_in_memory", "stage", "stage3_allgather_sequential"),
            "stage3_gather_16bit_weights_on_model_save",
            "stage3_gather_fp16_weights_on_model_save",
            *("stage3_use_all_reduce_for_fetch_params", "sub_group_size", "use_all_reduce_for_fetch_params"),
            *("use_multi_rank_bucket_allreduce", "zenflow", "zero_hpz_partition_size"),
            *("zero_quantized_gradients", "zero_quantized_nontrainable_weights", "zero_quantized_weights"),
            *_SIZES,
            *(f"stage3_{name}" for name in _SIZES),
        )
    ),
    (ZERO, "offload_param"): frozenset((*_OFFLOAD, "buffer_size", "max_in_cpu")),
    (ZERO, "offload_optimizer"): frozenset(
        (
            *(*_OFFLOAD, "cpuadam_cores_perc", "fast_init", "pipeline_read", "pipeline_write", "ratio"),
            "super_offload",
        )
    ),
}
"""The keys that DeepSpeed 0.19.8 takes in sections that refuse all others, by section."""
_OBJECTS = ((ZERO,), ("fp16",), ("bf16",), ("optimizer",), ("scheduler",))
_COUNTS = ("zero_hpz_partition_size", "reduce_bucket_size", "allgather_bucket_size", "sub_group_size")


def _later(facts: Facts) -> bool:
    """Return whether a DeepSpeed may read the configuration that has keys we do not know."""
    return facts.deepspeed is None or version_numbers(facts.deepspeed) > version_numbers(NEWEST)


@rule("unknown-key", "error", guess=_later)
def unknown_key(facts: Facts) -> Iterator[Problem]:
    """DeepSpeed refuses keys of zero_optimization that it does not know.

    Source: `DeepSpeedConfigModel` forbids extra keys. A later DeepSpeed may know more: then it is a warning.
    """
    for path, known in KEYS.items():
        section = facts.get(*path)
        for key in section if isinstance(section, dict) else ():
            if key not in known and ".".join((*path, key)) not in REMOVED:
                close = difflib.get_close_matches(key, sorted(known), 2, 0.7)
                fix = f"did you mean {' or '.join(close)}?" if close else "remove it"
                what = f"is no key of DeepSpeed {NEWEST}"
                yield Problem(what, facts.where("", *path, key), str(section[key]), fix)


@rule("wrong-type", "error")
def wrong_type(facts: Facts) -> Iterator[Problem]:
    """Sections are objects, the stage is 0 to 3, sizes are whole numbers that are not negative.

    Source: `DeepSpeedZeroConfig` and `DeepSpeedConfig` of 0.19.8, which fail in every rank.
    """
    for path in _OBJECTS:
        value = facts.get(*path)
        if value is not None and not isinstance(value, dict):
            yield _wrong(facts, path, "expected an object of keys", 'write it as {"key": value}')
    stage = facts.get(ZERO, "stage")
    if stage is not None and (isinstance(stage, bool) or stage not in (0, 1, 2, 3)):
        yield _wrong(facts, (ZERO, "stage"), "expected 0, 1, 2 or 3", "write 3 to cut the weights up too")
    for key in _COUNTS:
        value = facts.get(ZERO, key)
        if value is not None and not _is_count(value):
            yield _wrong(facts, (ZERO, key), "expected a whole number of 0 or more", "write a number")


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
    return (whole and value >= 0) or (isinstance(value, str) and value.isdecimal())


def _wrong(facts: Facts, path: tuple[str, ...], what: str, fix: str) -> Problem:
    return Problem(what, facts.where("", *path), str(facts.get(*path)), fix)
