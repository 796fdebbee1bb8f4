"""Rules about offload, and about settings that only some ZeRO stages have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.rules.facts import HPZ, ZERO, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts

_GIB = 2**30
_FORCE = "zero_force_ds_cpu_optimizer"
_COPES = re.compile(r"\b(?:DeepSpeedCPU(?:Adam|Lion)|(?:Accelerator|\w*Trainer)\s*\()")
_STAGE_3 = {  # field: key, which only the ZeRO-3 optimizer is given
    "prefetch_bucket_size": "stage3_prefetch_bucket_size",
    "param_persistence_threshold": "stage3_param_persistence_threshold",
    "max_live_parameters": "stage3_max_live_parameters",
    "max_reuse_distance": "stage3_max_reuse_distance",
    "sub_group_size": "sub_group_size",
}


@rule("client-optimizer-offload", "warning")
def client_optimizer_offload(facts: Facts) -> Iterator[Problem]:
    """With the optimizer offloaded, DeepSpeed refuses a script's own optimizer.

    Source: `runtime/engine.py`, `_configure_optimizer`: ZeRORuntimeException unless it is DeepSpeedCPUAdam or
    DeepSpeedCPULion, or zero_force_ds_cpu_optimizer is false. Accelerate, and with it the Trainer of
    Transformers, puts the right one in its place; a script that can be read is asked whether it uses them.
    """
    if not _client_optimizer_offloaded(facts) or facts.spec.train.launcher == "accelerate":
        return
    if facts.script is not None and _COPES.search(facts.script):
        return
    what = (
        "with offload_optimizer DeepSpeed refuses an optimizer that the script brings, but for its own "
        "DeepSpeedCPUAdam and DeepSpeedCPULion"
    )
    fix = (
        "let the script use DeepSpeedCPUAdam, add deepspeed.optimizer, or set force_ds_cpu_optimizer: false "
        "(slower)"
    )
    yield Problem(what, facts.where("offload_optimizer", ZERO, "offload_optimizer", "device"), None, fix)


@rule("accelerate-replaces-optimizer", "note")
def accelerate_replaces_optimizer(facts: Facts) -> Iterator[Problem]:
    """With the optimizer offloaded, Accelerate puts DeepSpeed's CPU Adam in place of the script's optimizer.

    Source: Accelerate 1.15, `map_pytorch_optim_to_deepspeed`: all but Adagrad and bitsandbytes' Lion become
    DeepSpeedCPUAdam, SGD too, with its lr and weight_decay only.
    """
    if _client_optimizer_offloaded(facts) and facts.prepared_by_accelerate:
        what = (
            "with offload_optimizer Accelerate turns the script's optimizer into DeepSpeedCPUAdam (Adagrad "
            "into its CPU kind) and keeps only its lr and weight_decay"
        )
        where = facts.where("offload_optimizer", ZERO, "offload_optimizer", "device")
        yield Problem(what, where, None, "for another one set force_ds_cpu_optimizer: false (slower)")


def _client_optimizer_offloaded(facts: Facts) -> bool:
    return facts.offloads("offload_optimizer") and facts.optimizer is None and facts.get(_FORCE) is not False


@rule("gpu-memory", "warning")
def gpu_memory(facts: Facts) -> Iterator[Problem]:
    """A run should fit into the GPU's memory.

    Source: the planner's estimate; with hpZ, hpz-memory says it.
    """
    needed, there = facts.gpu_memory_needed, facts.gpu_memory
    if not facts.active(HPZ) and needed is not None and there is not None and needed > there:
        what = f"a GPU needs about {needed / _GIB:.1f} GiB and has {there / _GIB:.1f}"
        fix = f"use {facts.less_memory}"
        where = "hardware.gpu" if facts.spec.hardware and facts.spec.hardware.gpu else "hardware"
        yield Problem(what, where, None, fix)


@rule("host-memory", "warning")
def host_memory(facts: Facts) -> Iterator[Problem]:
    """A run should fit into the memory of its hosts.

    Source: the planner's estimate: what is offloaded, or the model as it is made on every rank.
    """
    needed, there = facts.host_memory_needed, facts.host_memory
    if needed is None or there is None or needed <= there:
        return
    what = f"a host needs about {needed / _GIB:.1f} GiB of memory and has {there / _GIB:.1f}"
    if facts.offloads("offload_optimizer") or facts.offloads("offload_param"):
        fix = "use more hosts, or offload less: offload_param: none, or nvme"
        field = "offload_optimizer" if facts.offloads("offload_optimizer") else "offload_param"
        yield Problem(what, facts.where(field, ZERO, field, "device"), None, fix)
    else:
        fix = "make the model in parts: zero_stage: 3 with zero3_init: true, or fewer ranks a host"
        yield Problem(what, "deepspeed.zero3_init", None, fix)


@rule("offload-settings-unused", "warning")
def offload_settings_unused(facts: Facts) -> Iterator[Problem]:
    """pin_memory and force_ds_cpu_optimizer are for offload alone.

    Source: `runtime/zero/offload_config.py`; `runtime/engine.py`, `zero_use_cpu_optimizer`.
    """
    section = facts.spec.deepspeed
    if section is None or facts.config.get(ZERO) is None:
        return
    optimizer = _may_offload(facts, "offload_optimizer")
    if section.pin_memory is not None and not optimizer and not _may_offload(facts, "offload_param"):
        yield _unused("pin_memory", "without offload", "remove it, or add offload_optimizer: cpu")
    if section.force_ds_cpu_optimizer is not None and not optimizer:
        what = "without offload_optimizer"
        yield _unused("force_ds_cpu_optimizer", what, "remove it, or add offload_optimizer: cpu")


def _may_offload(facts: Facts, section: str) -> bool:
    given = facts.get(ZERO, section)
    return facts.offloads(section) or (isinstance(given, dict) and given.get("device") == "auto")


@rule("stage-3-settings-unused", "warning")
def stage_3_settings_unused(facts: Facts) -> Iterator[Problem]:
    """Settings of ZeRO-3 do nothing below it.

    Source: `runtime/engine.py`, `_configure_zero_optimizer`; Accelerate 1.15 switches zero3_init_flag off
    below stage 3, with a warning.
    """
    section = facts.spec.deepspeed
    if section is None or facts.stage is None or facts.stage >= 3:
        return
    given = [field for field in _STAGE_3 if getattr(section, field) is not None]
    given += [field for field in ("zero3_init", "zero3_save_16bit_model") if getattr(section, field)]
    given += ["moe_layer_cls_names"] if section.moe_layer_cls_names else []
    for field in given:
        yield _unused(
            field, f"below ZeRO stage 3 (stage is {facts.stage})", "remove it, or set zero_stage: 3"
        )


@rule("stage-2-settings-unused", "warning")
def stage_2_settings_unused(facts: Facts) -> Iterator[Problem]:
    """allgather_bucket_size does nothing at ZeRO stage 3.

    Source: `runtime/engine.py`, `_configure_zero_optimizer`: only stages 1 and 2 are given it.
    """
    section = facts.spec.deepspeed
    if section is not None and section.allgather_bucket_size is not None and facts.stage == 3:
        yield _unused("allgather_bucket_size", "at ZeRO stage 3", "remove it, or use prefetch_bucket_size")


def _unused(field: str, why: str, fix: str) -> Problem:
    return Problem(f"does nothing {why}", f"deepspeed.{field}", None, fix)
