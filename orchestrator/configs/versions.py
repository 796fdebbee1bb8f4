"""Keys of DeepSpeed's configuration that some version of DeepSpeed removed, renamed or added.

The versions are those of DeepSpeed's own tags and source packages: `runtime/config.py`,
`runtime/constants.py` and `runtime/zero/config.py` of each, compared with the one before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Place = Callable[..., str]

NEWEST = "0.19.8"
"""The version that is assumed where none is known."""


class Change(NamedTuple):
    """What became of a key: the version that changed it, and what to do in its place.

    `silent`: DeepSpeed does not refuse the key, it only no longer reads it.
    """

    version: str
    fix: str
    silent: bool = False


_HPZ = "use zero_hpz_partition_size"
_NO_MORE = "remove it"
REMOVED = {
    "amp": Change("0.19.8", "use bf16, fp16 or torch_autocast"),
    "compression_training": Change("0.19.7", _NO_MORE),
    "curriculum_learning": Change("0.19.8", "use data_efficiency.data_sampling.curriculum_learning"),
    "eigenvalue": Change("0.19.8", _NO_MORE),
    "elasticity": Change("0.19.8", "set the batch sizes themselves"),
    "fp32_allreduce": Change("0.5.8", "use communication_data_type: fp32", silent=True),
    "graph_harvesting": Change("0.19.8", _NO_MORE),
    "nebula": Change("0.19.7", "remove it; checkpoint.writer writes in the background"),
    "progressive_layer_drop": Change("0.19.8", _NO_MORE),
    "quantize_training": Change("0.19.7", _NO_MORE),
    "seq_parallel_comm_data_type": Change("0.16.5", "use seq_parallel_communication_data_type", silent=True),
    "sparse_attention": Change("0.19.7", _NO_MORE),
    "sparse_gradients": Change("0.19.8", "remove it; embeddings made with sparse=True need no key"),
    "zero_optimization.mics_hierarchical_params_gather": Change("0.19.7", _HPZ),
    "zero_optimization.mics_shard_size": Change("0.19.7", _HPZ),
    "zero_optimization.zeropp_loco_param": Change(
        "0.19.8", "remove it; zero_quantized_gradients works without it"
    ),
}
"""By dotted key: what no longer does anything from that version on."""

OPTIMIZERS = {
    "onebitadam": Change("0.19.7", "use AdamW"),
    "onebitlamb": Change("0.19.7", "use Lamb"),
    "zerooneadam": Change("0.19.7", "use AdamW"),
}
"""By type in lower case: optimizers that DeepSpeed looks up in torch.optim from that version on, in vain."""

RENAMED = {
    "zero_optimization.cpu_offload": Change("0.3.15", "write offload_optimizer: {device: cpu}"),
    "zero_optimization.cpu_offload_param": Change("0.3.15", "write offload_param: {device: cpu}"),
    "zero_optimization.cpu_offload_use_pin_memory": Change(
        "0.3.15", "write pin_memory in offload_optimizer and offload_param", silent=True
    ),
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": Change(
        "0.6.0", "write stage3_gather_16bit_weights_on_model_save"
    ),
}
"""By dotted key: what has another name from that version on, and is still taken under the old one."""

_FIELDS_SINCE = {
    "0.10.0": ("zero_hpz_partition_size", "zero_quantized_gradients", "zero_quantized_weights"),
    "0.10.1": ("override_module_apply", "pipeline_loading_checkpoint"),
    "0.10.2": ("zero_quantized_nontrainable_weights",),
    "0.12.4": ("use_multi_rank_bucket_allreduce",),
    "0.14.3": ("stage3_use_all_reduce_for_fetch_params",),
    "0.16.0": ("stage3_module_granularity_threshold",),
    "0.16.4": ("log_trace_cache_warnings",),
    "0.17.5": ("zenflow",),
    "0.17.6": ("enable_sanity_checks",),
    "0.18.0": ("leaf_module",),
    "0.18.5": ("stage3_allgather_sequential",),
    "0.18.9": ("save_muon_momentum_buffer_in_memory",),
    "0.19.7": ("compute_grad_norm", "parameter_alignment"),
}
ADDED = {
    f"zero_optimization.{key}": Change(version, f"install deepspeed {version} or newer")
    for version, keys in _FIELDS_SINCE.items()
    for key in keys
}
"""By dotted key: what an older DeepSpeed refuses, as it does every unknown key of zero_optimization."""


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 0.19.8 of `0.19.8+cu124`, to be compared."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _anywhere(*_: str) -> str:
    return "deepspeed"


def removed(
    config: Mapping[str, Any], version: str | None = None, where: Place = _anywhere
) -> Iterator[Problem]:
    """Yield a problem for each key that DeepSpeed refuses, no longer reads, or does not know yet.

    Args:
        config: DeepSpeed's configuration.
        version: the DeepSpeed that will read it; None is taken for 0.19.8.
        where: tells where the key at a path is written.
    """
    for key, change in _changed(config, REMOVED, version):
        does = "does not read it" if change.silent else "refuses it"
        yield _problem(
            key, f"was removed in DeepSpeed {change.version}: {version or NEWEST} {does}", change, where
        )
    for key, change in _unchanged(config, ADDED, version):
        yield _problem(key, f"came with DeepSpeed {change.version}: {version} refuses it", change, where)
    section = config.get("optimizer")
    kind = str(section.get("type")) if isinstance(section, dict) else ""
    gone = OPTIMIZERS.get(kind.lower())
    if gone is not None and version_numbers(version or NEWEST) >= version_numbers(gone.version):
        what = f"this optimizer was removed in DeepSpeed {gone.version}"
        place = where("optimizer", "type")
        yield Problem(what, "deepspeed.optimizer.type" if place == "deepspeed" else place, kind, gone.fix)


def renamed(
    config: Mapping[str, Any], version: str | None = None, where: Place = _anywhere
) -> Iterator[Problem]:
    """Yield a problem for each key with an old name: the training runs, so a warning is enough.

    Args: as for `removed`.
    """
    for key, change in _changed(config, RENAMED, version):
        still = "and is no longer read" if change.silent else "and may go in any later version"
        yield _problem(key, f"is an old name since DeepSpeed {change.version} {still}", change, where)


def changing(
    config: Mapping[str, Any], version: str | None = None, where: Place = _anywhere
) -> Iterator[Problem]:
    """Yield a problem for each key that this version takes and a later one does not, or not by this name.

    Args: as for `removed`.
    """
    yield from renamed(config, version, where)
    for key, change in _unchanged(config, REMOVED, version):
        does = "does not read it" if change.silent else "refuses it"
        yield _problem(key, f"works in DeepSpeed {version}; {change.version} {does}", change, where)


def _problem(key: str, words: str, change: Change, where: Place) -> Problem:
    """Return a problem with a key, which is named once: by its place, or by the words."""
    place = where(*key.split("."))
    return Problem(words if place.endswith(key) else f"{key} {words}", place, fix=change.fix)


def _changed(
    config: Mapping[str, Any], table: Mapping[str, Change], version: str | None
) -> Iterator[tuple[str, Change]]:
    """Yield the keys of the configuration that the version has changed, in the table's order."""
    judged = version_numbers(version or NEWEST)
    for key, change in table.items():
        if _has(config, key) and judged >= version_numbers(change.version):
            yield key, change


def _unchanged(
    config: Mapping[str, Any], table: Mapping[str, Change], version: str | None
) -> Iterator[tuple[str, Change]]:
    """Yield the keys of the configuration that a later version changes, in the table's order."""
    judged = version_numbers(version or NEWEST)
    for key, change in table.items():
        if _has(config, key) and judged < version_numbers(change.version):
            yield key, change


def _has(config: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return False
        config = config[part]
    return True
