"""A model of which nothing trains: a step is one forward pass, and all that training adds is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.errors import JobFileError
from orchestrator.estimate import (
    Hardware,
    ModelShape,
    Settings,
    World,
    find_gpu,
    gpu_memory,
    host_memory,
    shape_of,
    step_time,
    suggest,
    traffic,
)
from orchestrator.estimate.speed import flops
from orchestrator.job import ModelSpec, load_job
from tests.planned import HARDWARE
from tests.samples import click

P = 7_000_000_000
TRAINED = ModelShape(P, P, 131_072_000, 4096, 32, 32, 32_000, 2048)
SHAPE = replace(TRAINED, trainable=0)
SETTINGS = Settings(3, "bf16", 2, 1, persistence_threshold=0, prefetch_bucket=0, max_reuse=0)
WORLD = World(2, 4)
H100 = Hardware(find_gpu("H100-80GB"), "cuda", link=12.5e9, host_memory=10**12)


def test_a_gpu_holds_its_share_of_the_weights_and_one_block():
    memory = gpu_memory(SHAPE, SETTINGS, WORLD)
    assert (memory.parameters, memory.gradients, memory.optimizer, memory.step) == (2 * P // 8, 0, 0, 0)
    assert memory.buffers == 0
    block = gpu_memory(replace(TRAINED, layers=1), SETTINGS, WORLD).activations
    assert memory.activations == block
    assert memory.total < gpu_memory(TRAINED, SETTINGS, WORLD).total / 4


def test_offloaded_weights_are_all_that_a_host_holds():
    memory = host_memory(SHAPE, replace(SETTINGS, offload_param="cpu"), WORLD)
    assert (memory.parameters, memory.gradients, memory.optimizer) == (P, 0, 0)


def test_weights_are_gathered_once_and_nothing_is_reduced():
    sent = traffic(SHAPE, SETTINGS, WORLD).world
    assert (sent.forward_gather, sent.total) == (2 * P, 2 * P)
    assert traffic(TRAINED, SETTINGS, WORLD).world.total == 3 * 2 * P


def test_a_third_of_the_arithmetic():
    assert 3 * flops(SHAPE, SETTINGS) == flops(TRAINED, SETTINGS)
    moved = Hardware(find_gpu("H100-80GB"), "cuda", link=12.5e9, host_link=1e9)
    one, both = (
        step_time(shape, replace(SETTINGS, offload_param="cpu"), WORLD, moved) for shape in (SHAPE, TRAINED)
    )
    assert 2 * one.offload == both.offload


def test_only_what_infers_is_suggested():
    found = suggest(SHAPE, SETTINGS, WORLD, H100).ranked
    assert {each.settings.stage for each in found} == {3}
    assert {each.settings.offload_optimizer for each in found} == {"none"}
    assert {each.settings.offload_param for each in found} == {"none", "cpu"}
    assert not any(each.lossy for each in found)


def test_the_job_file_says_it():
    numbers = {"parameters": "7B", "trainable_parameters": 0}
    assert shape_of(ModelSpec.model_validate(numbers)).is_inference
    with pytest.raises(ValueError, match="lora trains adapters"):
        ModelSpec.model_validate({**numbers, "lora": {"r": 8}})


def test_a_plan_speaks_of_no_training(job):
    path = job(HARDWARE + "name: ask\n")
    path.write_text(
        path.read_text().replace('"parameters": "7B"', '"parameters": "7B", "trainable_parameters": 0')
    )
    shown = click("plan", "job.yaml", "--quick", "--suggest").output
    assert "none of them trained" in shown
    assert "peak (in forward)" in shown
    assert "one forward pass" in shown
    for word in ("optimizer ", "gradients in", "Checkpoint", "qgZ", "DeepSpeed's own estimate", "host_mtbf"):
        assert word not in shown, word


def test_a_count_below_none_is_none(job):
    path = job(model=False)
    path.write_text(path.read_text() + "model: {parameters: 7B, trainable_parameters: -1}\n")
    with pytest.raises(JobFileError, match="trainable_parameters"):
        load_job(path)
