from __future__ import annotations

import pytest

from orchestrator.configs.accelerate_config import build, check_launcher
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool

EVEN = HostPool((Host("a", (0, 1)), Host("b", (2, 3))))
UNEVEN = HostPool((Host("a", (0, 1)), Host("b", (0, 1, 2)), Host("c", (0,))))


def test_the_deepspeed_file_says_everything():
    assert build(
        {"zero_optimization": {"stage": 3}}, ds_config_path="/run/ds.json", world_size=4, num_machines=2
    ) == {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "deepspeed_config_file": "/run/ds.json",
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": True,
        },
        "num_machines": 2,
        "num_processes": 4,
        "rdzv_backend": "static",
        "main_training_function": "main",
        "use_cpu": False,
    }


def test_the_address_is_given_when_known_and_zero_init_only_in_stage_3():
    config = build(
        {"zero_optimization": {"stage": 2}},
        ds_config_path="d",
        world_size=1,
        num_machines=1,
        main_process_ip="10.0.0.1",
        main_process_port=29501,
    )
    assert (config["main_process_ip"], config["main_process_port"]) == ("10.0.0.1", 29501)
    assert config["deepspeed_config"]["zero3_init_flag"] is False


@pytest.mark.parametrize(("stage", "asked"), [(3, False), (2, True), ("auto", True)])
def test_zero_init_is_as_the_job_file_says(stage, asked):
    ds_config = {"zero_optimization": {"stage": stage}}
    config = build(ds_config, ds_config_path="d", world_size=1, num_machines=1, zero3_init=asked)
    assert config["deepspeed_config"]["zero3_init_flag"] is asked


@pytest.mark.parametrize(
    ("ds_config", "message"),
    [
        (None, "train.launcher: launcher accelerate needs a deepspeed section"),
        ({}, "deepspeed.zero_stage: launcher accelerate needs a ZeRO stage"),
    ],
)
def test_accelerate_needs_deepspeed_with_zero(ds_config, message):
    with pytest.raises(JobFileError, match=message):
        build(ds_config, ds_config_path="d", world_size=1, num_machines=1)


def test_accelerate_needs_the_same_slots_everywhere():
    (problem,) = check_launcher("accelerate", UNEVEN)
    assert str(problem) == (
        "train.launcher: launcher accelerate needs the same number of slots on every host"
        " (got c with 1, b with 3)\n  fix: set cluster.slots: 1, or use launcher: torchrun or deepspeed"
    )
    assert check_launcher("accelerate", EVEN) == []
    assert check_launcher("torchrun", UNEVEN) == check_launcher("deepspeed", UNEVEN) == []
