"""From a job file and DeepSpeed's configuration to the values that estimates take."""

from __future__ import annotations

import json

import pytest

from orchestrator.estimate import ModelShape, Settings, World, settings_of, shape_of
from orchestrator.job.model import JobSpec
from orchestrator.job.model_spec import ModelSpec


def job(**sections) -> JobSpec:
    base = {"cluster": {"backend": "local"}, "train": {"script": "train.py"}}
    return JobSpec.model_validate(base | sections)


def test_a_job_without_deepspeed_is_plain_data_parallelism():
    found = settings_of({}, job())
    assert (found.stage, found.precision, found.hpz, found.accumulation) == (0, "fp32", 1, 1)
    assert found.micro_batch is None


def test_a_whole_configuration():
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 8,
        "fp16": {"enabled": True},
        "bf16": {"enabled": False},
        "optimizer": {"type": "Lion"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": {
            "stage": 3,
            "zero_hpz_partition_size": 8,
            "zero_quantized_weights": True,
            "zero_quantized_gradients": True,
            "zero_quantized_nontrainable_weights": True,
            "offload_optimizer": {"device": "nvme", "nvme_path": "/x"},
            "offload_param": {"device": "cpu"},
            "reduce_bucket_size": 1000,
            "stage3_prefetch_bucket_size": 900.0,
            "stage3_param_persistence_threshold": 10,
            "stage3_max_live_parameters": 5,
            "stage3_max_reuse_distance": 6,
            "sub_group_size": 7,
            "allgather_bucket_size": 8,
            "overlap_comm": False,
            "contiguous_gradients": False,
            "reduce_scatter": False,
        },
    }
    spec = job(
        model={"parameters": "7B", "recompute": True, "attention": "eager"}, deepspeed={"zero3_init": False}
    )
    assert settings_of(config, spec) == Settings(
        stage=3,
        precision="fp16",
        micro_batch=2,
        accumulation=8,
        hpz=8,
        quantized_weights=True,
        quantized_gradients=True,
        quantized_nontrainable=True,
        offload_optimizer="nvme",
        offload_param="cpu",
        zero_init=False,
        recompute=True,
        attention="eager",
        overlap_comm=False,
        contiguous_gradients=False,
        reduce_scatter=False,
        reduce_bucket=1000,
        allgather_bucket=8,
        prefetch_bucket=900,
        persistence_threshold=10,
        max_live=5,
        max_reuse=6,
        sub_group=7,
        gradient_bytes=4,
        communication_bytes=4,
        state_bytes=4,
    )


def test_auto_counts_as_deepspeeds_default():
    config = {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "overlap_comm": "auto"},
    }
    found = settings_of(config, job())
    assert (found.micro_batch, found.accumulation, found.precision) == (None, 1, "fp32")
    assert (found.reduce_bucket, found.overlap_comm) == (500_000_000, True)
    assert not settings_of({"zero_optimization": {"stage": 2}}, job()).overlap_comm


def test_hpz_is_clamped_and_quantization_needs_hosts():
    settings = Settings(3, hpz=16, quantized_gradients=True)
    assert settings.hpz_group(World(1, 8)) == 8
    assert settings.hpz_group(World(4, 8)) == 16
    assert Settings(2, hpz=16).hpz_group(World(4, 8)) == 1
    assert Settings(3, hpz=0).hpz_group(World(4, 8)) == 1
    assert [settings.quantizes_gradients(World(nodes, 8)) for nodes in (1, 2)] == [False, True]


def test_a_shape_from_numbers():
    spec = ModelSpec(
        parameters="7B",
        hidden_size=4096,
        layers=32,
        attention_heads=32,
        vocabulary=32_000,
        sequence_length=2048,
    )
    assert shape_of(spec) == ModelShape(
        7 * 10**9, 7 * 10**9, 32_000 * 4096, 4096, 32, 32, 32_000, 2048, source="model.parameters"
    )
    assert shape_of(ModelSpec(config="gpt2")) is None
    assert shape_of(ModelSpec(parameters="1B")).largest_layer is None


@pytest.mark.parametrize(
    ("targets", "adapters"),
    [(None, 2), (["q_proj", "k_proj", "v_proj"], 3), ("all-linear", 7)],
)
def test_adapters_are_counted(targets, adapters):
    lora = {"r": 8, "target_modules": targets}
    shape = shape_of(ModelSpec(parameters="7B", hidden_size=4096, layers=32, lora=lora))
    assert shape.trainable == adapters * 32 * 2 * 8 * 4096
    assert shape.frozen == 7 * 10**9


def test_trainable_parameters_are_taken_as_they_are_said():
    assert shape_of(ModelSpec(parameters="7B", trainable_parameters="1M")).trainable == 10**6
    with_lora = shape_of(ModelSpec(parameters="7B", trainable_parameters="1M", lora={"r": 8}))
    assert (with_lora.trainable, with_lora.frozen) == (10**6, 7 * 10**9)
    assert shape_of(ModelSpec(parameters="7B", lora={"r": 8})) is None


def test_json_round_trip():
    shape = ModelShape(100, 10, tensors=(50, 25, 25), source="x", pretrained_in="bf16", active_parameters=7)
    assert ModelShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape
    assert ModelShape.from_json({"parameters": 1, "trainable": 1, "later": 2}) == ModelShape(1, 1)
    assert shape.sizes == ((25, 2), (50, 1))


def test_a_block_is_what_is_left_without_embeddings():
    assert ModelShape(1_100, 1_100, hidden_size=10, layers=9, vocabulary=10).block == 100
    assert ModelShape(1_100, 1_100, hidden_size=10, layers=10, vocabulary=100).block == 110  # tied, or wrong
    assert ModelShape(1_100, 1_100).block is None
