"""Every field of the section `deepspeed` and where it arrives."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.configs.deepspeed_config import build
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec

POOL = HostPool((Host("a", (0, 1)), Host("b", (0, 1))))
ZERO = "zero_optimization"
ELSEWHERE = {"config_file", "auto", "overrides", "zero3_init"}  # the last goes to Accelerate's own file
CASES = {
    "zero_stage": (2, {ZERO: {"stage": 2}}),
    "hpz": ("node", {ZERO: {"zero_hpz_partition_size": 2}}),
    "quantized_weights": (True, {ZERO: {"zero_quantized_weights": True}}),
    "quantized_gradients": (True, {ZERO: {"zero_quantized_gradients": True}}),
    "quantized_nontrainable_weights": (True, {ZERO: {"zero_quantized_nontrainable_weights": True}}),
    "micro_batch_per_gpu": (
        2,
        {
            "train_micro_batch_size_per_gpu": 2,
            "train_batch_size": 8,
            "gradient_accumulation_steps": 1,
        },
    ),
    "global_batch": (
        8,
        {
            "train_micro_batch_size_per_gpu": 2,
            "train_batch_size": 8,
            "gradient_accumulation_steps": 1,
        },
    ),
    "gradient_accumulation_steps": (4, {"gradient_accumulation_steps": 4}),
    "gradient_clipping": (0.5, {"gradient_clipping": 0.5}),
    "precision": ("fp16", {"fp16": {"enabled": True}}),
    "fp16": (
        {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2}
        | {"min_loss_scale": 1, "auto_cast": False},
        {
            "fp16": {"loss_scale": 0, "initial_scale_power": 16, "loss_scale_window": 1000}
            | {"hysteresis": 2, "min_loss_scale": 1, "auto_cast": False}
        },
    ),
    "offload_optimizer": ("none", {ZERO: {"offload_optimizer": {"device": "none"}}}),
    "offload_param": ("none", {ZERO: {"offload_param": {"device": "none"}}}),
    "force_ds_cpu_optimizer": (False, {"zero_force_ds_cpu_optimizer": False}),
    "zero3_save_16bit_model": (True, {ZERO: {"stage3_gather_16bit_weights_on_model_save": True}}),
    "moe_layer_cls_names": (
        ["MixtralSparseMoeBlock"],
        {ZERO: {"leaf_module": {"classes": ["MixtralSparseMoeBlock"]}}},
    ),
    "optimizer": (
        {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95]}},
        {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "betas": [0.9, 0.95]}}},
    ),
    "scheduler": (
        {"type": "WarmupLR", "params": {"warmup_num_steps": 10}},
        {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}}},
    ),
    "reduce_bucket_size": (5e8, {ZERO: {"reduce_bucket_size": 500_000_000}}),
    "allgather_bucket_size": (10, {ZERO: {"allgather_bucket_size": 10}}),
    "prefetch_bucket_size": (10, {ZERO: {"stage3_prefetch_bucket_size": 10}}),
    "param_persistence_threshold": (0, {ZERO: {"stage3_param_persistence_threshold": 0}}),
    "max_live_parameters": (1e9, {ZERO: {"stage3_max_live_parameters": 1_000_000_000}}),
    "max_reuse_distance": (0, {ZERO: {"stage3_max_reuse_distance": 0}}),
    "sub_group_size": (1e9, {ZERO: {"sub_group_size": 1_000_000_000}}),
    "overlap_comm": (True, {ZERO: {"overlap_comm": True}}),
    "contiguous_gradients": (False, {ZERO: {"contiguous_gradients": False}}),
    "reduce_scatter": (True, {ZERO: {"reduce_scatter": True}}),
    "activation_checkpointing": (
        {"partition_activations": True, "cpu_checkpointing": True, "number_checkpoints": 4},
        {
            "activation_checkpointing": {"partition_activations": True, "cpu_checkpointing": True}
            | {"number_checkpoints": 4}
        },
    ),
    "checkpoint": (
        {"load_universal": True, "tag_validation": "Fail", "use_node_local_storage": False},
        {"checkpoint": {"load_universal": True, "tag_validation": "Fail", "use_node_local_storage": False}},
    ),
    # who writes a section wants it on
    "flops_profiler": (
        {"profile_step": 2, "output_file": "flops.txt"},
        {"flops_profiler": {"enabled": True, "profile_step": 2, "output_file": "flops.txt"}},
    ),
    "comms_logger": (
        {"prof_ops": ["all_reduce"]},
        {"comms_logger": {"enabled": True, "prof_ops": ["all_reduce"]}},
    ),
    "tensorboard": (
        {"output_path": "tb", "job_name": "x"},
        {"tensorboard": {"enabled": True, "output_path": "tb", "job_name": "x"}},
    ),
    "csv_monitor": ({"enabled": False}, {"csv_monitor": {"enabled": False}}),
    "wandb": ({"project": "p"}, {"wandb": {"enabled": True, "project": "p"}}),
}
WITH_OTHERS = {  # these say something only beside another field
    "offload_optimizer_nvme_path": (
        {"zero_stage": 3, "offload_optimizer": "nvme", "offload_optimizer_nvme_path": "/nvme"},
        {ZERO: {"stage": 3, "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"}}},
    ),
    "offload_param_nvme_path": (
        {"zero_stage": 3, "offload_param": "nvme", "offload_param_nvme_path": "/nvme"},
        {ZERO: {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/nvme"}}},
    ),
    "pin_memory": (
        {"zero_stage": 3, "offload_optimizer": "cpu", "offload_param": "none", "pin_memory": True},
        {
            ZERO: {
                "stage": 3,
                "offload_optimizer": {"device": "cpu", "pin_memory": True},
                "offload_param": {"device": "none"},
            }
        },
    ),
}


def made(**fields):
    return build(DeepSpeedSpec.model_validate(fields), POOL, Path("/nowhere")).config


def test_no_field_is_forgotten():
    assert set(DeepSpeedSpec.model_fields) == ELSEWHERE | set(CASES) | set(WITH_OTHERS)


@pytest.mark.parametrize("name", CASES)
def test_a_field_arrives(name):
    value, expected = CASES[name]
    assert made(**{name: value}) == expected


@pytest.mark.parametrize("name", WITH_OTHERS)
def test_a_field_arrives_beside_another(name):
    fields, expected = WITH_OTHERS[name]
    assert made(**fields) == expected


def test_pin_memory_finds_the_offload_of_a_file(tmp_path):
    (tmp_path / "ds.json").write_text(
        '{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"},'
        ' "offload_optimizer": {"device": "none"}}}'
    )
    spec = DeepSpeedSpec.model_validate({"config_file": "ds.json", "pin_memory": False})
    assert build(spec, POOL, tmp_path).config[ZERO] == {
        "stage": 3,
        "offload_param": {"device": "cpu", "pin_memory": False},
        "offload_optimizer": {"device": "none"},
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"sub_group_size": "auto"},  # nobody would fill it
        {"allgather_bucket_size": float("inf")},
        {"reduce_bucket_size": 0},
        {"prefetch_bucket_size": -1},
        {"gradient_clipping": float("nan")},
        {"fp16": {"min_loss_scale": 0}},
        {"fp16": {"loss_scale": float("inf")}},
    ],
)
def test_values_that_deepspeed_would_refuse(fields):
    with pytest.raises(ValidationError):
        DeepSpeedSpec.model_validate(fields)


def test_parameters_of_an_optimizer_fill_the_autos_of_a_file(tmp_path):
    (tmp_path / "ds.json").write_text(
        '{"optimizer": {"type": "AdamW", "params": {"lr": "auto", "eps": 1e-8}}, "fp16": {"enabled": "auto"}}'
    )
    fields = {"config_file": "ds.json", "optimizer": {"type": "AdamW", "params": {"lr": 0.1}}}
    spec = DeepSpeedSpec.model_validate(fields | {"precision": "bf16"})
    config = build(spec, POOL, tmp_path).config
    assert config["optimizer"] == {"type": "AdamW", "params": {"lr": 0.1, "eps": 1e-8}}
    assert (config["fp16"], config["bf16"]) == ({"enabled": False}, {"enabled": True})


def test_another_optimizer_than_the_files_is_an_error(tmp_path):
    (tmp_path / "ds.json").write_text('{"optimizer": {"type": "AdamW", "params": {}}}')
    spec = DeepSpeedSpec.model_validate({"config_file": "ds.json", "optimizer": {"type": "Lion"}})
    with pytest.raises(
        JobFileError, match=r'deepspeed\.optimizer\.type: says "Lion", but optimizer\.type in'
    ):
        build(spec, POOL, tmp_path)


def test_a_rounded_size_is_said_where_its_value_changes():
    fields = {"zero_stage": 3, "prefetch_bucket_size": 0.9 * 1023 * 1023, "reduce_bucket_size": 5e8}
    (note,) = build(DeepSpeedSpec.model_validate(fields), POOL, Path("/nowhere")).warnings[:1]
    assert str(note) == (
        "deepspeed.prefetch_bucket_size: zero_optimization.stage3_prefetch_bucket_size was rounded to "
        "941876: DeepSpeed takes whole numbers (got 941876.1)\n  fix: write 941876"
    )
