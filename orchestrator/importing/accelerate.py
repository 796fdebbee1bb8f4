"""From what `accelerate launch` goes by to a job file.

Sources are `commands/launch.py` and `utils/launch.py` of Accelerate 1.15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.importing.accelerate_fields import map_deepspeed
from orchestrator.importing.accelerate_hosts import carry_address, place_hosts, place_in_slurm
from orchestrator.importing.accelerate_read import check_type
from orchestrator.importing.accelerate_values import is_on, precision_word

if TYPE_CHECKING:
    from orchestrator.importing.accelerate_read import Settings
    from orchestrator.importing.draft import Draft

_TPU = "is for TPUs"
_NOT_CARRIED = {  # key: (the values that say nothing, why it is not carried)
    "commands": ((), _TPU),
    "command_file": ((), _TPU),
    "downcast_bf16": ((False, "no", "NO", "false"), _TPU),
    "fp8_config": ((), "fp8 is not a precision of the job file"),
    "fsdp_config": ((), "FSDP is off"),
    "megatron_lm_config": ((), "Megatron-LM is off"),
    "main_training_function": (("main",), "is for TPUs and notebooks; ranks run the whole script"),
    "mpirun_config": ((), "ranks are not started by mpirun"),
    "rdzv_backend": (("static",), "hosts agree on one address and port; there is no other rendezvous"),
    "same_network": ((True, False), ""),
    "tpu_env": ((), _TPU),
    "tpu_name": ((), _TPU),
    "tpu_use_cluster": ((False,), _TPU),
    "tpu_use_sudo": ((False,), _TPU),
    "tpu_vm": ((), _TPU),
    "tpu_zone": ((), _TPU),
    "use_parallelism_config": ((False,), "is for FSDP"),
}
_MAPPED = frozenset(
    {
        *("compute_environment", "distributed_type", "mixed_precision", "use_cpu", "debug", "fp16"),
        *("num_processes", "machine_rank", "num_machines", "gpu_ids", "main_process_ip", "dynamo_backend"),
        *("main_process_port", "enable_cpu_affinity", "dynamo_config", "parallelism_config"),
        *("num_cpu_threads_per_process", "deepspeed_hostfile", "deepspeed_inclusion_filter"),
        *("deepspeed_exclusion_filter", "deepspeed_multinode_launcher", "deepspeed_config_file"),
        *("zero_stage", "gradient_accumulation_steps", "gradient_clipping", "offload_optimizer_device"),
        *("offload_param_device", "offload_optimizer_nvme_path", "offload_param_nvme_path"),
        *("zero3_init_flag", "zero3_save_16bit_model", "deepspeed_moe_layer_cls_names"),
    }
)


def map_accelerate(
    settings: Settings, draft: Draft, *, prefer: str | None = None, in_slurm: bool = False
) -> None:
    """Write into a draft all that the settings say.

    Args:
        settings: from a configuration, a command line, or both.
        draft: gets `cluster`, `deepspeed` and much of `train`.
        prefer: for a file that says a thing twice, `file` for DeepSpeed's JSON, `fields` for the rest.
        in_slurm: Slurm gives the hosts; who asks it writes the rest of `cluster`.

    Raises:
        JobFileError: what no job file can say, or what Accelerate itself would refuse.
    """
    kind = settings.get("distributed_type") or "NO"
    check_type(str(kind), settings.where("distributed_type"))
    if in_slurm:
        place_in_slurm(settings, draft)
    else:
        place_hosts(settings, draft, deepspeed=kind == "DEEPSPEED")
        carry_address(settings, draft)
    if kind == "DEEPSPEED":
        draft.put("train.launcher", "accelerate")
        map_deepspeed(settings, draft, prefer)
    else:
        _without_deepspeed(settings, draft)
    _environment(settings, draft, deepspeed=kind == "DEEPSPEED")
    _others(settings, draft)


def _without_deepspeed(settings: Settings, draft: Draft) -> None:
    """Say in variables what the Accelerator of a script without DeepSpeed reads from them."""
    draft.put("train.launcher", "torchrun")
    where = settings.where("distributed_type")
    draft.change(where, "train.launcher: torchrun, which is what Accelerate uses without DeepSpeed")
    precision = precision_word(settings)
    if precision not in (None, "no"):
        key = "train.env.ACCELERATE_MIXED_PRECISION"
        draft.carry(settings.where("mixed_precision"), key, precision)
    if is_on(settings.get("use_cpu")):
        draft.carry(settings.where("use_cpu"), "train.env.ACCELERATE_USE_CPU", "true")
    for key, value in settings.values.items():
        if key in _DEEPSPEED_ONLY and value is not None:
            draft.drop(settings.where(key), "DeepSpeed is off")


_DEEPSPEED_ONLY = frozenset(
    {"zero_stage", "zero3_init_flag", "zero3_save_16bit_model", "deepspeed_config_file"}
)


def _environment(settings: Settings, draft: Draft, *, deepspeed: bool) -> None:
    if deepspeed and is_on(settings.get("use_cpu")):
        draft.drop(settings.where("use_cpu"), "it would switch DeepSpeed off; without GPUs it finds the CPU")
    if is_on(settings.get("debug")):
        draft.carry(settings.where("debug"), "train.env.ACCELERATE_DEBUG_MODE", "true")
    if is_on(settings.get("enable_cpu_affinity")):
        draft.carry(settings.where("enable_cpu_affinity"), "train.env.ACCELERATE_CPU_AFFINITY", "1")
    threads = settings.get("num_cpu_threads_per_process")
    if threads is not None:
        where = settings.where("num_cpu_threads_per_process")
        draft.carry(where, "train.env.OMP_NUM_THREADS", str(threads))
    _dynamo(settings, draft, deepspeed=deepspeed)


def _dynamo(settings: Settings, draft: Draft, *, deepspeed: bool) -> None:
    config = settings.get("dynamo_config") or {}
    said: dict[str, Any] = {}
    for key, value in config.items() if isinstance(config, dict) else ():
        said[key if key.startswith("dynamo_") else f"dynamo_{key}"] = value
    said |= {key: value for key, value in settings.values.items() if key.startswith("dynamo_")}
    said.pop("dynamo_config", None)
    backend = str(said.get("dynamo_backend") or "no").lower()
    where = settings.where("dynamo_config" if config else "dynamo_backend")
    if backend == "no" or said.get("dynamo_backend") is False:
        return
    if deepspeed:
        draft.drop(where, "Accelerate does not pass it on with DeepSpeed either; call torch.compile")
        return
    for key, value in said.items():
        text = backend.upper() if key == "dynamo_backend" else str(value)
        draft.carry(where, f"train.env.ACCELERATE_{key.upper()}", text)


def _others(settings: Settings, draft: Draft) -> None:
    for key, value in settings.values.items():
        if key in _MAPPED or key.startswith("dynamo_"):
            continue
        silent, reason = _NOT_CARRIED.get(key, ((), "is no key that Accelerate 1.15 knows"))
        if value not in (None, "", {}, [], *silent):
            draft.drop(settings.where(key), reason)


def known_keys() -> frozenset[str]:
    """Return every key that is mapped, or named as not carried."""
    return _MAPPED | frozenset(_NOT_CARRIED)
