from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.configs.batch import resolve_batch
from orchestrator.configs.deepspeed_config import build
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec

POOL = HostPool((Host("a", (0, 1)), Host("b", (0, 1))))


def made(**fields):
    return build(DeepSpeedSpec.model_validate(fields), POOL, Path("/nowhere")).config


@pytest.mark.parametrize(
    ("fields", "numbers"),
    [
        ({"micro_batch_per_gpu": 2}, (8, 2, 1)),
        ({"micro_batch_per_gpu": 2, "gradient_accumulation_steps": 3}, (24, 2, 3)),
        ({"micro_batch_per_gpu": 2, "global_batch": 16}, (16, 2, 2)),
        ({"global_batch": 16, "gradient_accumulation_steps": 2}, (16, 2, 2)),
        ({"global_batch": 16}, (16, 4, 1)),
        ({"global_batch": 16, "micro_batch_per_gpu": 2, "gradient_accumulation_steps": 2}, (16, 2, 2)),
        ({"micro_batch_per_gpu": 2, "overrides": {"sequence_parallel_size": 2}}, (4, 2, 1)),
        ({"micro_batch_per_gpu": 2, "overrides": {"tensor_parallel": {"autotp_size": 4}}}, (2, 2, 1)),
        ({"micro_batch_per_gpu": 2, "overrides": {"train_batch_size": 16.0}}, (16, 2, 2)),
    ],
)
def test_all_three_batch_numbers_follow(fields, numbers):
    config = made(**fields)
    keys = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert tuple(config[key] for key in keys) == numbers
    assert all(type(config[key]) is int for key in keys)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"global_batch": 16, "micro_batch_per_gpu": 4, "gradient_accumulation_steps": 2},
            (
                "deepspeed.global_batch: the global batch 16 does not fit"
                " 4 samples x 2 accumulation steps x 4 ranks = 32"
                "\n  fix: set global_batch: 32 or micro_batch_per_gpu: 2 or gradient_accumulation_steps: 1"
            ),
        ),
        (
            {"global_batch": 10, "micro_batch_per_gpu": 2},
            (
                "deepspeed.global_batch: the global batch 10 does not fit"
                " 2 samples x 4 ranks = 8, no divisor of 10"
                "\n  fix: set global_batch: 8 or 16 or change the number of ranks"
            ),
        ),
        (
            {"global_batch": 3},
            (
                "deepspeed.global_batch: the global batch 3 does not fit"
                " 1 accumulation step x 4 ranks = 4, no divisor of 3\n"
                "  fix: set global_batch: 4 or change the number of ranks"
            ),
        ),
        (
            {"overrides": {"train_batch_size": 0, "gradient_accumulation_steps": "two"}},
            "deepspeed.overrides.train_batch_size: train_batch_size must be a whole number of 1 or more",
        ),
        (
            {"micro_batch_per_gpu": 1, "overrides": {"sequence_parallel_size": 3}},
            "deepspeed: 4 ranks cannot be split into groups of 3",
        ),
    ],
)
def test_batch_numbers_that_do_not_fit(fields, message):
    with pytest.raises(JobFileError) as caught:
        made(**fields)
    assert str(caught.value.problems[0]).startswith(message)


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8), st.integers(1, 16))
def test_what_a_batch_error_proposes_works(total, micro, steps, ranks):
    assume(total != micro * steps * ranks)
    config = {
        "train_batch_size": total,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": steps,
    }
    with pytest.raises(JobFileError) as caught:
        resolve_batch(config, ranks)
    (problem,) = caught.value.problems
    names = {
        "set global_batch": "train_batch_size",
        "micro_batch_per_gpu": "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
    }
    proposals = [way.split(": ") for way in problem.fix.split(" or ") if ": " in way]
    assert proposals
    for name, number in proposals:
        assert resolve_batch(config | {names[name]: int(number)}, ranks)[names[name]] == int(number)
