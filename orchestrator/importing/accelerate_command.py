"""`accelerate launch [options] script args` as a job file.

The options are those of `commands/launch.py` of Accelerate 1.15. An option goes before the configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError
from orchestrator.importing.accelerate import map_accelerate
from orchestrator.importing.accelerate_read import SECTION, Settings, check_type, default_path, read_settings
from orchestrator.importing.draft import located
from orchestrator.importing.options import Parsed, Tool, both, drop_rest, parse
from orchestrator.importing.program import set_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.importing.draft import Draft

_TPU = "is for TPUs"
_LOGS = "every rank has a log of its own in the run directory: orchestrate logs"
_FP8 = (
    "fp8_backend fp8_margin fp8_interval fp8_format fp8_amax_history_len fp8_amax_compute_algo "
    "fp8_override_linear_precision fp8_opt_level fp8_enable_fsdp_float8_all_gather fp8_pad_inner_dim"
)
_FSDP = (
    "version offload_params min_num_params sharding_strategy reshard_after_forward auto_wrap_policy "
    "transformer_layer_cls_to_wrap backward_prefetch state_dict_type forward_prefetch use_orig_params "
    "cpu_ram_efficient_loading sync_module_states activation_checkpointing activation_checkpointing_offload"
)
_MEGATRON = (
    "tp_degree use_custom_fsdp no_load_optim eod_mask_loss overlap_cpu_optimizer_d2h_h2d no_save_optim "
    "optimizer_cpu_offload use_precision_aware_optimizer decoder_last_pipeline_num_layers pp_degree "
    "num_micro_batches sequence_parallelism recompute_activations use_distributed_optimizer "
    "gradient_clipping recompute_granularity recompute_method recompute_num_layers attention_backend "
    "expert_model_parallel_size context_parallel_size attention_dropout hidden_dropout "
    "attention_softmax_in_fp32 expert_tensor_parallel_size calculate_per_token_loss "
    "use_rotary_position_embeddings"
)
_PARALLELISM = (
    "dp_replicate_size dp_shard_size tp_size cp_size cp_backend cp_comm_strategy sp_size sp_backend "
    "sp_seq_length sp_seq_length_is_variable sp_attn_implementation"
)
_DEEPSPEED = (
    "deepspeed_config_file zero_stage offload_optimizer_device offload_param_device "
    "offload_optimizer_nvme_path offload_param_nvme_path gradient_accumulation_steps gradient_clipping "
    "zero3_init_flag zero3_save_16bit_model deepspeed_hostfile deepspeed_exclusion_filter "
    "deepspeed_inclusion_filter deepspeed_multinode_launcher deepspeed_moe_layer_cls_names"
)
_CLUSTER = (
    "mixed_precision num_processes num_machines num_cpu_threads_per_process dynamo_backend dynamo_mode "
    "gpu_ids machine_rank main_process_ip main_process_port rdzv_backend main_training_function"
)
_FLAGS = (
    "enable_cpu_affinity dynamo_use_fullgraph dynamo_use_dynamic dynamo_use_regional_compilation "
    "same_network downcast_bf16 debug"
)


def _prefixed(prefix: str, names: str) -> tuple[str, ...]:
    return both(" ".join(f"{prefix}_{name}" for name in names.split()))


TOOL = Tool(
    "accelerate launch",
    values=(
        *both(f"config_file {_CLUSTER} {_DEEPSPEED} {_FP8}"),
        *both("log_dir role rdzv_conf max_restarts monitor_interval mpirun_hostfile"),
        *both("aws_access_key_id aws_secret_access_key"),
        *_prefixed("fsdp", _FSDP),
        *_prefixed("megatron_lm", _MEGATRON),
        *_prefixed("parallelism_config", _PARALLELISM),
        "-t|--tee",
    ),
    flags=(
        *both(f"{_FLAGS} cpu multi_gpu tpu use_deepspeed use_fsdp use_parallelism_config use_megatron_lm"),
        *both("no_python tpu_cluster no_tpu_cluster tpu_use_sudo fp8_use_autocast_during_eval"),
        *("-q|--quiet", "-m|--module"),
    ),
    appended=("--vm", "--env"),
    reasons={
        "aws_*": "is for SageMaker",
        "env": _TPU,
        "fp8_*": "fp8 is not a precision of the job file",
        "fsdp_*": "FSDP is off",
        "log_dir": _LOGS,
        "max_restarts": "ranks that crash are not started again; max_restarts of the job file is about "
        "preemption, lost hosts and the time limit",
        "megatron_lm_*": "Megatron-LM is off",
        "monitor_interval": "ranks are watched without polling",
        "mpirun_hostfile": "ranks are not started by mpirun",
        "no_tpu_cluster": _TPU,
        "parallelism_config_*": "is for FSDP",
        "quiet": "the launcher's own messages are not shown",
        "rdzv_conf": "hosts agree on one address and port; there is no other rendezvous",
        "role": "all ranks have the same role",
        "tee": _LOGS,
        "tpu_*": _TPU,
        "use_parallelism_config": "is for FSDP",
        "vm": _TPU,
    },
)
_KINDS = {
    "multi_gpu": "MULTI_GPU",
    "tpu": "TPU",
    "use_deepspeed": "DEEPSPEED",
    "use_fsdp": "FSDP",
    "use_megatron_lm": "MEGATRON_LM",
}
_SETTINGS = frozenset(f"{_CLUSTER} {_DEEPSPEED} {_FLAGS}".split())
_OF_THE_RUN = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
_MAPPED = _SETTINGS | _KINDS.keys() | {"config_file", "cpu", "module", "no_python"}


def map_accelerate_launch(
    words: Sequence[str],
    draft: Draft,
    source: str,
    environ: Mapping[str, str],
    *,
    prefer: str | None = None,
    in_slurm: bool = False,
) -> None:
    """Write into a draft what `accelerate launch WORDS` does.

    Args:
        words: behind `accelerate launch`.
        draft: gets `cluster`, `deepspeed` and `train`.
        source: where the command stands.
        environ: where Accelerate's default configuration is found.
        prefer: as for map_accelerate.
        in_slurm: Slurm gives the hosts.

    Raises:
        JobFileError: the command or its configuration is wrong, or says what no job file can.
    """
    parsed = parse(TOOL, words, source)
    settings = merged(parsed, draft, source, environ)
    map_accelerate(settings, draft, prefer=prefer, in_slurm=in_slurm)
    flags = {name: bool(parsed.options.get(name)) for name in ("module", "no_python")}
    set_program(draft, parsed.words, source, module=flags["module"], no_python=flags["no_python"])
    drop_rest(TOOL, parsed, _MAPPED, draft, source)


def merged(parsed: Parsed, draft: Draft, source: str, environ: Mapping[str, str]) -> Settings:
    """Return the configuration with the options over it.

    Raises:
        JobFileError: there is no such configuration, or it is of a kind that no job file can say.
    """
    options = parsed.options
    settings = _configuration(parsed, draft, source, environ)
    kind = next((_KINDS[name] for name in _KINDS if name in options), None)
    if kind is not None:
        check_type(kind, f"{source}: distributed type")
        _set(settings, "distributed_type", kind, source)
    if "cpu" in options:
        _set(settings, "use_cpu", True, f"{source}: --cpu")  # Accelerate then leaves DeepSpeed out
        _set(settings, "distributed_type", "NO", f"{source}: --cpu")
    for name in sorted(_SETTINGS & options.keys()):
        if name in _OF_THE_RUN and "$" in str(options[name]):
            draft.drop(f"{source}: --{name}", f"{options[name]} is known only when it runs")
        else:
            _set(settings, name, options[name], f"{source}: --{name}")
    if "mixed_precision" in options:  # then the file's own is not read, so it is not said twice
        settings.of_file = {**settings.of_file, "mixed_precision": None}
    section = settings.of_file.get(SECTION)
    if "deepspeed_config_file" in options and isinstance(section, dict):
        named = {**section, "deepspeed_config_file": options["deepspeed_config_file"]}
        settings.of_file = {**settings.of_file, SECTION: named, "distributed_type": "DEEPSPEED"}
    return settings


def _set(settings: Settings, key: str, value: Any, place: str) -> None:
    settings.values[key], settings.places[key] = value, place


def _configuration(parsed: Parsed, draft: Draft, source: str, environ: Mapping[str, str]) -> Settings:
    """Return what the configuration says: the one that is named, or Accelerate's default if there is one."""
    named = parsed.options.get("config_file")
    if named is not None:
        path = located(draft.path(named))
        found = read_settings(path if path.is_file() or path.is_absolute() else Path(named))
        draft.say(f"{source}: --config_file", f"read from {named}")
        return found
    if "cpu" in parsed.options:
        return Settings(source)
    try:
        path = default_path(environ)
    except JobFileError:
        return Settings(source)
    draft.change(source, f"{path}, Accelerate's default configuration on this machine, counts too")
    return read_settings(path)
