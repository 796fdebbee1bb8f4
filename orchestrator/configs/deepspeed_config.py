"""DeepSpeed's configuration from a job file: the JSON file, the fields, and both together.

The rules are those of DeepSpeed 0.19.8 (`runtime/config.py`, `runtime/zero/config.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.configs.auto import Autos, remaining, resolve, unfilled
from orchestrator.configs.batch import resolve_batch
from orchestrator.configs.fields import ZERO, wishes
from orchestrator.configs.hidden_size import hidden_size
from orchestrator.configs.json_source import read_json_object
from orchestrator.configs.merge import fill, merge, not_json
from orchestrator.configs.sizes import round_sizes
from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from orchestrator.hosts import HostPool
    from orchestrator.job.deepspeed_spec import DeepSpeedSpec
    from orchestrator.job.model import Launcher
    from orchestrator.job.model_spec import ModelSpec

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


@dataclass(frozen=True)
class Built:
    """DeepSpeed's configuration, and what there is to say about it.

    Attributes:
        config: ready to be written as JSON.
        rounded: sizes that were no whole numbers, and what they are now.
        resolved: values that were `auto`, and what they are now.
        unresolved: dotted keys that stay `auto` for the training script.
    """

    config: dict[str, Any]
    rounded: tuple[Problem, ...] = ()
    resolved: tuple[Problem, ...] = ()
    unresolved: tuple[str, ...] = ()


def build(
    spec: DeepSpeedSpec,
    pool: HostPool,
    base_dir: Path,
    *,
    launcher: Launcher = "torchrun",
    model: ModelSpec | None = None,
) -> Built:
    """Return DeepSpeed's configuration.

    Fields fill what the file leaves out or calls `auto`; overrides are merged last. What is `auto` after that
    is filled here, or stays for the training script (`deepspeed.auto`).

    Args:
        spec: section `deepspeed` of the job file.
        pool: the hosts that are used: their number of ranks decides about batch sizes and `hpz: node`.
        base_dir: folder where a relative `config_file` starts.
        launcher: the training launcher: a script that accelerate starts fills `auto` itself.
        model: section `model`, whose hidden size some `auto` values follow.

    Raises:
        JobFileError: the file is not JSON; a field and the file differ; batch sizes do not fit the ranks; an
            offload that the stage does not have; a key that DeepSpeed 0.19.8 refuses; an `auto` that nobody
            fills.
    """
    config, name = {}, ""
    if spec.config_file is not None:
        path = base_dir / spec.config_file.expanduser()
        config, name = read_json_object(path, "deepspeed.config_file"), str(path)
    in_file = dict(config)
    problems = [problem for wish in wishes(spec, pool, config) for problem in fill(config, wish, name)]
    if launcher == "accelerate" and spec.precision == "fp16" and not in_file.get("fp16"):
        config["fp16"].setdefault(
            "auto_cast", True
        )  # as `accelerate launch --mixed_precision fp16` has it (1.15)
    merge(config, spec.overrides)
    problems += not_json(spec.overrides)
    autos = Autos(
        spec.auto or ("script" if launcher == "accelerate" else "resolve"),
        launcher,
        hidden_size(model, base_dir, os.environ),
    )
    resolved = tuple(resolve(config, autos))
    problems += [*_removed(config), *_offload_problems(config, spec)]
    if problems:
        raise JobFileError(*problems)
    rounded = tuple(round_sizes(config.get(ZERO)))
    config.update(resolve_batch(config, pool.world_size))
    problems += unfilled(config, autos)
    if problems:
        raise JobFileError(*problems)
    unresolved = tuple(".".join(path) for path in remaining(config))
    return Built(config, rounded, resolved, unresolved)


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
