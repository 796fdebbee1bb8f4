"""DeepSpeed's configuration from a job file: the JSON file, the fields, and both together.

The rules are those of DeepSpeed 0.19.8 (`runtime/config.py`, `runtime/zero/config.py`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.configs.batch import GLOBAL, MICRO, STEPS, resolve_batch
from orchestrator.configs.json_source import read_json_object
from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job.deepspeed_spec import DeepSpeedSpec

ZERO = "zero_optimization"
_REMOVED = {  # key: what to do in its place; DeepSpeed 0.19.8 refuses a configuration with any of them
    "amp": "use bf16, fp16 or torch_autocast",
    "compression_training": "remove it",
    "curriculum_learning": "use data_efficiency.data_sampling.curriculum_learning",
    "eigenvalue": "remove it",
    "elasticity": "set the batch sizes themselves",
    "graph_harvesting": "remove it",
    "nebula": "remove it",
    "progressive_layer_drop": "remove it",
    "quantize_training": "remove it",
    "sparse_attention": "remove it",
    "sparse_gradients": "remove it",
}
_REMOVED_ZERO = {
    "mics_shard_size": "use zero_hpz_partition_size",
    "mics_hierarchical_params_gather": "use zero_hpz_partition_size",
    "zeropp_loco_param": "remove it; zero_quantized_gradients works without it",
}
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


@dataclass(frozen=True)
class _Wish:
    """One field of the job file: its name, what it puts where in the configuration, and how it is said."""

    field: str
    path: tuple[str, ...]
    value: Any
    said: Any = None

    @property
    def where(self) -> str:
        return f"deepspeed.{self.field}"


def build(spec: DeepSpeedSpec, pool: HostPool, base_dir: Path) -> dict[str, Any]:
    """Return DeepSpeed's configuration, ready to be written as JSON.

    Fields fill what the file leaves out or calls `auto`; overrides are merged last. What stays `auto` is for
    the training script to fill.

    Args:
        spec: section `deepspeed` of the job file.
        pool: the hosts that are used: their number of ranks decides about batch sizes and `hpz: node`.
        base_dir: folder where a relative `config_file` starts.

    Raises:
        JobFileError: the file is not JSON; a field and the file differ; batch sizes do not fit the ranks; an
            offload that the stage does not have; a key that DeepSpeed 0.19.8 refuses.
    """
    config, name = {}, ""
    if spec.config_file is not None:
        path = base_dir / spec.config_file.expanduser()
        config, name = read_json_object(path, "deepspeed.config_file"), str(path)
    problems = [problem for wish in _wishes(spec, pool, config) for problem in _fill(config, wish, name)]
    _merge(config, spec.overrides)
    problems += [*_removed(config), *_offload_problems(config, spec), *_not_json(spec.overrides)]
    if problems:
        raise JobFileError(*problems)
    _round_sizes(config.get(ZERO))
    config.update(resolve_batch(config, pool.world_size))
    return config


def _wishes(spec: DeepSpeedSpec, pool: HostPool, config: Mapping[str, Any]) -> list[_Wish]:
    """Return what the fields that are given ask for."""
    wishes = [
        _Wish("zero_stage", (ZERO, "stage"), spec.zero_stage),
        _Wish("hpz", (ZERO, "zero_hpz_partition_size"), _hpz(spec, pool)),
        _Wish("quantized_weights", (ZERO, "zero_quantized_weights"), spec.quantized_weights),
        _Wish("quantized_gradients", (ZERO, "zero_quantized_gradients"), spec.quantized_gradients),
        _Wish("micro_batch_per_gpu", (MICRO,), spec.micro_batch_per_gpu),
        _Wish("global_batch", (GLOBAL,), spec.global_batch),
        _Wish("gradient_accumulation_steps", (STEPS,), spec.gradient_accumulation_steps),
        _Wish("gradient_clipping", ("gradient_clipping",), spec.gradient_clipping),
        *_precision(spec, config),
        *_offload("offload_optimizer", spec.offload_optimizer, spec.offload_optimizer_nvme_path),
        *_offload("offload_param", spec.offload_param, spec.offload_param_nvme_path),
    ]
    return [wish for wish in wishes if wish.value is not None]


def _hpz(spec: DeepSpeedSpec, pool: HostPool) -> int | None:
    from orchestrator.hosts.topology import resolve_hpz  # noqa: PLC0415 - topology reads configurations too

    return None if spec.hpz is None else resolve_hpz(spec.hpz, pool)


def _precision(spec: DeepSpeedSpec, config: Mapping[str, Any]) -> Iterator[_Wish]:
    """Yield a switch for the wanted arithmetic, and one for each other kind that the file mentions."""
    if spec.precision is None:
        return
    bf16 = "bfloat16" if "bfloat16" in config else "bf16"  # DeepSpeed still reads the old name
    for kind, section in (("bf16", bf16), ("fp16", "fp16")):
        if kind == spec.precision or section in config:
            yield _Wish("precision", (section, "enabled"), kind == spec.precision, spec.precision)


def _offload(section: str, device: str | None, nvme_path: Path | None) -> Iterator[_Wish]:
    yield _Wish(section, (ZERO, section, "device"), device)
    yield _Wish(f"{section}_nvme_path", (ZERO, section, "nvme_path"), nvme_path and str(nvme_path))


def _fill(config: dict[str, Any], wish: _Wish, name: str) -> Iterator[Problem]:
    """Put a field's value into the configuration; yield a problem where the file says something else."""
    *sections, key = wish.path
    section: Any = config
    for step in sections:
        if section.get(step) in (None, "auto"):
            section[step] = {}
        section = section[step]
        if not isinstance(section, dict):
            yield Problem(
                f"{step} in {name} is no object", wish.where, json.dumps(section), "write it as an object"
            )
            return
    found = section.get(key)
    if found in (None, "auto"):
        section[key] = wish.value
    elif found != wish.value:
        here, there = json.dumps(wish.said or wish.value), json.dumps(found)
        what = f"says {here}, but {'.'.join(wish.path)} in {name} says {there}"
        yield Problem(what, wish.where, fix='remove one of them, or write "auto" in the file')


def _merge(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Merge `overrides` into `config`: objects key by key, everything else as a whole."""
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = copy.deepcopy(value)


def _not_json(overrides: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for numbers that YAML has and JSON has not."""
    try:
        json.dumps(overrides, allow_nan=False)
    except ValueError:
        yield Problem(
            "inf and nan cannot be written as JSON", "deepspeed.overrides", fix="write a finite number"
        )


def _removed(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each key that DeepSpeed 0.19.8 no longer accepts."""
    zero = config.get(ZERO)
    for keys, table, prefix in ((config, _REMOVED, ""), (zero, _REMOVED_ZERO, f"{ZERO}.")):
        for key in keys if isinstance(keys, dict) else ():
            if key in table:
                what = f"{prefix}{key} is refused by DeepSpeed 0.19.8, which has removed it"
                yield Problem(what, "deepspeed", fix=table[key])


def _offload_problems(config: Mapping[str, Any], spec: DeepSpeedSpec) -> Iterator[Problem]:
    """Yield a problem for each offload that the stage does not have, or that lacks its path."""
    zero = config.get(ZERO)
    zero = zero if isinstance(zero, dict) else {}
    stage = zero.get("stage", 0)
    for section, path in (
        ("offload_optimizer", spec.offload_optimizer_nvme_path),
        ("offload_param", spec.offload_param_nvme_path),
    ):
        where, offload = f"deepspeed.{section}", zero.get(section)
        offload = offload if isinstance(offload, dict) else {}
        device = offload.get("device", "none")
        least = 3 if section == "offload_param" or device == "nvme" else 1
        if device in ("cpu", "nvme") and isinstance(stage, int) and stage < least:
            what = f"{section} to {device} needs ZeRO stage {least}, the stage is {stage}"
            yield Problem(what, where, fix=f"set zero_stage: {least}, or {section}: none")
        if device == "nvme" and not offload.get("nvme_path"):
            yield Problem("offload to nvme needs a path", where, fix=f"add {section}_nvme_path: /local/nvme")
        if path is not None and device not in ("nvme", "auto"):
            fix = f"set {section}: nvme, or remove the path"
            yield Problem(f"is given, but {section} is {device}", f"{where}_nvme_path", str(path), fix)


def _round_sizes(section: Any) -> None:
    """Turn sizes that are written as floats into the whole numbers that DeepSpeed takes."""
    for key, value in section.items() if isinstance(section, dict) else ():
        if isinstance(value, dict):
            _round_sizes(value)
        elif key in _WHOLE and isinstance(value, float):
            section[key] = round(value)
