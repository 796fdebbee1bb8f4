"""Rules of Accelerate, and of what makes its own configuration ambiguous."""

from __future__ import annotations

import pytest

from orchestrator.rules import accelerate
from tests.facts import Case, assert_case, found, ids

LOOP = "from accelerate import Accelerator; accelerator = Accelerator(); scheduler = get_scheduler()"
TRAIN = "train: {launcher: accelerate}"
OPTIMIZER = "optimizer: {type: AdamW}"
SCHEDULER = "scheduler: {type: WarmupLR}"

CASES = [
    Case(
        "accelerate-optimizer-without-scheduler",
        f"{TRAIN}, deepspeed: {{{OPTIMIZER}}}",
        f"{TRAIN}, deepspeed: {{{OPTIMIZER}, {SCHEDULER}}}",
    ),
    Case("accelerate-dummies", f"{TRAIN}, deepspeed: {{{OPTIMIZER}, {SCHEDULER}}}", ""),
    Case(
        "accelerate-accumulation",
        f"{TRAIN}, deepspeed: {{gradient_accumulation_steps: 4}}",
        "deepspeed: {gradient_accumulation_steps: 4}",
    ),
    Case(
        "accelerate-pipeline",
        f"{TRAIN}, deepspeed: {{overrides: {{pipeline: {{stages: 2}}}}}}",
        "deepspeed: {overrides: {pipeline: {stages: 2}}}",
    ),
    Case(
        "accelerate-tensor-parallel",
        f"{TRAIN}, deepspeed: {{overrides: {{tensor_parallel: {{autotp_size: 2}}}}}}",
        "deepspeed: {overrides: {tensor_parallel: {autotp_size: 2}}}",
    ),
    Case("accelerate-one-model", TRAIN, ""),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_fires_and_is_silent(case):
    assert_case(case)


def dummies(settings: str) -> list[str]:
    line = f"{TRAIN}, deepspeed: {{{settings}}}"
    return [each.problem.what for each in found(line) if each.rule == "accelerate-dummies"]


def test_each_case_of_optimizer_and_scheduler_is_told_what_the_script_has_to_use():
    both = dummies(f"{OPTIMIZER}, {SCHEDULER}")
    assert [("DummyOptim" in what, "DummyScheduler" in what) for what in both] == [
        (True, False),
        (False, True),
    ]
    (own,) = dummies("")
    assert own == "the script brings optimizer and scheduler; DummyOptim would be refused"
    (scheduler,) = dummies(SCHEDULER)
    assert "DummyScheduler in place of its own scheduler" in scheduler
    (optimizer,) = dummies(OPTIMIZER)
    assert "lr_scheduler_callable" in optimizer


@pytest.mark.parametrize(
    ("script", "fires"),
    [
        (LOOP, True),
        (
            "from accelerate import Accelerator; a = Accelerator(); s = torch.optim.lr_scheduler.StepLR(o)",
            True,
        ),
        ("a = Accelerator(); s = DummyScheduler(o, lr_scheduler_callable=make)", False),
        ("a = Accelerator(); o = DummyOptim(p)", False),
        ("a = Accelerator() # no scheduler here", False),
        ("trainer = Trainer(model, args)", False),
        ("engine, *_ = deepspeed.initialize(model=model)", False),
    ],
)
def test_an_optimizer_alone_is_refused_unless_the_script_is_seen_to_be_right(script, fires):
    line = f"{TRAIN}, deepspeed: {{{OPTIMIZER}}}, facts: {{script: '{script}'}}"
    assert ("accelerate-optimizer-without-scheduler" in ids(line)) is fires


def test_an_optimizer_in_overrides_is_taken_as_it_is():
    line = f"{TRAIN}, deepspeed: {{overrides: {{{OPTIMIZER}}}}}"
    assert "accelerate-optimizer-without-scheduler" not in ids(line)
    assert "accelerate-dummies" in ids(line)


def test_nothing_is_asked_of_a_script_that_accelerate_only_starts():
    line = (
        f"{TRAIN}, deepspeed: {{{OPTIMIZER}, offload_optimizer: cpu}}, facts: {{script: 'import deepspeed'}}"
    )
    assert ids(line) == []


def test_who_decides_on_accumulation_is_told():
    line = f"{TRAIN}, deepspeed: {{overrides: {{gradient_accumulation_steps: auto}}}}"
    (left,) = [each.problem.what for each in found(line) if each.rule == "accelerate-accumulation"]
    assert left == "Accelerator(gradient_accumulation_steps=k) in the script decides"
    (fixed,) = [
        each.problem
        for each in found(f"{TRAIN}, deepspeed: {{gradient_accumulation_steps: 4}}")
        if each.rule == "accelerate-accumulation"
    ]
    assert (fixed.value, fixed.where) == ("4", "deepspeed.gradient_accumulation_steps")


SCENARIO_1 = {
    "compute_environment": "LOCAL_MACHINE",
    "deepspeed_config": {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "offload_optimizer_device": "cpu",
        "offload_param_device": "cpu",
        "zero3_init_flag": True,
        "zero3_save_16bit_model": True,
        "zero_stage": 3,
        "deepspeed_config_file": "ds_config.json",
    },
    "distributed_type": "DEEPSPEED",
    "num_machines": 1,
    "num_processes": 2,
}


def test_the_documented_ambiguity_is_found():
    assert accelerate.ambiguous(SCENARIO_1) == [
        "gradient_accumulation_steps",
        "gradient_clipping",
        "zero_stage",
        "offload_optimizer_device",
        "offload_param_device",
        "zero3_save_16bit_model",
    ]
    assert accelerate.ambiguous(SCENARIO_1 | {"mixed_precision": "no"})[-1] == "mixed_precision"


@pytest.mark.parametrize(
    "change",
    [
        {"deepspeed_config": {"deepspeed_config_file": "ds.json", "zero3_init_flag": True}},
        {"deepspeed_config": {"zero_stage": 3, "gradient_clipping": 1.0}},
        {"distributed_type": "MULTI_GPU"},
        {"deepspeed_config": None},
    ],
)
def test_what_is_clear_is_not_called_ambiguous(change):
    assert accelerate.ambiguous(SCENARIO_1 | change) == []
