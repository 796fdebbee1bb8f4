from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from orchestrator.configs.deepspeed_config import build
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec, ModelSpec

POOL = HostPool((Host("a", (0, 1)), Host("b", (0, 1))))


def built(file=None, *, tmp_path=None, launcher="torchrun", model=None, **fields):
    """Return what `build` makes of fields, and of a file when its content is given."""
    if file is not None:
        (tmp_path / "ds.json").write_text(
            file if isinstance(file, str) else json.dumps(file), encoding="utf-8"
        )
        fields["config_file"] = Path("ds.json")
    about = None if model is None else ModelSpec.model_validate(model)
    spec = DeepSpeedSpec.model_validate(fields)
    return build(spec, POOL, tmp_path or Path("/nowhere"), launcher=launcher, model=about)


def made(file=None, **fields):
    return built(file, **fields).config


def problems(*args, **fields):
    with pytest.raises(JobFileError) as caught:
        made(*args, **fields)
    return [str(problem) for problem in caught.value.problems]


def test_fields_alone_say_nothing_that_was_not_asked_for():
    assert made() == {}
    assert made(zero_stage=3) == {"zero_optimization": {"stage": 3}}


def test_all_fields():
    assert made(
        zero_stage=3,
        hpz="node",
        quantized_weights=True,
        quantized_gradients=False,
        micro_batch_per_gpu=2,
        gradient_accumulation_steps=4,
        gradient_clipping=1.0,
        precision="bf16",
        offload_optimizer="nvme",
        offload_optimizer_nvme_path="/nvme",
        offload_param="cpu",
        overrides={"zero_optimization": {"overlap_comm": True}, "steps_per_print": 10},
    ) == {
        "zero_optimization": {
            "stage": 3,
            "zero_hpz_partition_size": 2,
            "zero_quantized_weights": True,
            "zero_quantized_gradients": False,
            "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"},
            "offload_param": {"device": "cpu"},
            "overlap_comm": True,
        },
        "train_batch_size": 32,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "steps_per_print": 10,
    }


def test_fields_fill_what_the_file_calls_auto_and_the_rest_stays(tmp_path):
    config = made(
        {
            "train_batch_size": "auto",
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": 2,
            "gradient_clipping": "auto",
            "bf16": "auto",
            "fp16": {"enabled": "auto"},
            "zero_optimization": {
                "stage": 3,
                "reduce_bucket_size": "auto",
                "offload_param": {"device": "auto"},
            },
        },
        tmp_path=tmp_path,
        zero_stage=3,
        micro_batch_per_gpu=3,
        precision="bf16",
        offload_param="none",
        auto="script",
    )
    assert config == {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": "auto",
        "bf16": {"enabled": True},
        "fp16": {"enabled": False},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": "auto", "offload_param": {"device": "none"}},
    }


def test_every_difference_between_field_and_file_is_an_error_that_names_both(tmp_path):
    file = {
        "zero_optimization": {"stage": 2, "zero_quantized_weights": True},
        "gradient_clipping": 1,
        "fp16": {"enabled": True},
    }
    found = problems(
        file, tmp_path=tmp_path, zero_stage=3, quantized_weights=True, gradient_clipping=0.5, precision="bf16"
    )
    name, fix = tmp_path / "ds.json", '\n  fix: remove one of them, or write "auto" in the file'
    assert found == [
        f"deepspeed.zero_stage: says 3, but zero_optimization.stage in {name} says 2{fix}",
        f"deepspeed.gradient_clipping: says 0.5, but gradient_clipping in {name} says 1{fix}",
        f'deepspeed.precision: says "bf16", but fp16.enabled in {name} says true{fix}',
    ]


def test_precision_fills_the_old_name_too(tmp_path):
    assert made({"bfloat16": {"enabled": "auto"}}, tmp_path=tmp_path, precision="bf16") == {
        "bfloat16": {"enabled": True}
    }
    assert made({"fp16": {}, "bf16": {}}, tmp_path=tmp_path, precision="fp32") == {
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
    }


def test_a_section_that_is_no_object_is_an_error(tmp_path):
    (problem,) = problems({"zero_optimization": True}, tmp_path=tmp_path, zero_stage=3)
    assert problem.startswith("deepspeed.zero_stage: zero_optimization in ")


def test_overrides_win_over_file_and_fields_and_are_not_shared(tmp_path):
    overrides = {"zero_optimization": {"stage": 1, "x": {"y": 1}}, "optimizer": {"type": "AdamW"}}
    spec_before = copy.deepcopy(overrides)
    file = {"zero_optimization": {"stage": 3, "overlap_comm": True}, "optimizer": "auto"}
    config = made(file, tmp_path=tmp_path, zero_stage=3, overrides=overrides)
    assert config["zero_optimization"] == {"stage": 1, "overlap_comm": True, "x": {"y": 1}}
    assert config["optimizer"] == {"type": "AdamW"}
    config["zero_optimization"]["x"]["y"] = 2
    assert overrides == spec_before


def test_a_field_that_overrides_contradict_is_told():
    known = {"zero_stage": 3, "precision": "bf16", "micro_batch_per_gpu": 1}
    over = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": False}}
    said = [str(warning) for warning in built(**known, overrides=over).warnings]
    assert said[0].startswith(
        "deepspeed.zero_stage: does nothing: deepspeed.overrides.zero_optimization.stage says 2, and"
    )
    assert [text.partition(":")[0] for text in said] == ["deepspeed.zero_stage", "deepspeed.precision"]
    same = built(**known, overrides={"zero_optimization": {"stage": 3, "round_robin_gradients": True}})
    assert same.warnings == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "a": 1,\n}', r"ds\.json:3:1: not JSON: |ds\.json:2:9: not JSON: "),
        ('{"a": {"b": 1,\n"b": 2}}', r"ds\.json:2: the key 'b' twice"),
        ('{"a": NaN}', r"ds\.json:1: NaN is not JSON"),
        ("[]", r"ds\.json: expected one JSON object"),
        ("", r"ds\.json:1:1: not JSON"),
        ('{"a": 1} // comment', r"ds\.json:1:10: not JSON: Extra data"),
    ],
)
def test_a_file_that_is_not_json(tmp_path, text, message):
    with pytest.raises(JobFileError, match=message):
        made(text, tmp_path=tmp_path)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xff"}')
    for name, message in (
        ("none.json", "deepspeed.config_file: cannot be read: No such file"),
        ("latin.json", "not UTF-8 at byte 7"),
    ):
        with pytest.raises(JobFileError, match=message):
            build(DeepSpeedSpec(config_file=Path(name)), POOL, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"zero_stage": 0, "offload_optimizer": "cpu"},
            "deepspeed.offload_optimizer: offload_optimizer to cpu needs",
        ),
        (
            {"offload_optimizer": "cpu"},
            "deepspeed.offload_optimizer: offload_optimizer to cpu needs ZeRO stage 1",
        ),
        (
            {"zero_stage": 2, "offload_optimizer": "nvme", "offload_optimizer_nvme_path": "/x"},
            "deepspeed.offload_optimizer: offload_optimizer to nvme needs ZeRO stage 3, the stage is 2",
        ),
        (
            {"zero_stage": 2, "offload_param": "cpu"},
            "deepspeed.offload_param: offload_param to cpu needs ZeRO stage 3",
        ),
        ({"zero_stage": 3, "offload_param": "nvme"}, "deepspeed.offload_param: offload to nvme needs a path"),
        (
            {"zero_stage": 3, "offload_param": "cpu", "offload_param_nvme_path": "/x"},
            "deepspeed.offload_param_nvme_path: is given, but offload_param is cpu (got /x)",
        ),
        (
            {"overrides": {"a": [float("inf")]}},
            "deepspeed.overrides.a: inf and nan cannot be written as JSON (got [inf])",
        ),
        (
            {"optimizer": {"type": "AdamW", "params": {"lr": float("nan")}}},
            "deepspeed.optimizer.params.lr: inf and nan cannot be written as JSON (got nan)",
        ),
    ],
)
def test_what_deepspeed_would_refuse(fields, message):
    (problem,) = problems(**fields)
    assert problem.startswith(message)
    assert "\n  fix: " in problem


@pytest.mark.parametrize(
    "fields",
    [
        {"zero_stage": 1, "offload_optimizer": "cpu"},
        {"zero_stage": 0, "offload_optimizer": "none", "offload_param": "none"},
        {"zero_stage": 3, "offload_optimizer": "cpu", "offload_param": "cpu"},
    ],
)
def test_offloads_that_the_stage_has(fields):
    assert made(**fields)["zero_optimization"]["stage"] == fields["zero_stage"]


def test_sizes_become_whole_numbers():
    zero = {
        "stage": 3,
        "reduce_bucket_size": 5e8,
        "stage3_prefetch_bucket_size": 0.9 * 1023 * 1023,
        "offload_param": {"device": "cpu", "buffer_size": 1e8},
        "offload_optimizer": {"device": "cpu", "ratio": 0.5},
    }
    rounded = made(overrides={"zero_optimization": zero})["zero_optimization"]
    assert rounded["reduce_bucket_size"] == 500_000_000
    assert type(rounded["reduce_bucket_size"]) is int
    assert rounded["stage3_prefetch_bucket_size"] == 941_876
    assert type(rounded["offload_param"]["buffer_size"]) is int
    assert rounded["offload_optimizer"]["ratio"] == 0.5


@pytest.mark.parametrize(
    "file",
    [
        {"gradient_accumulation_steps": 2},
        {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"},
        {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": "auto"},
        {"train_batch_size": 16, "train_micro_batch_size_per_gpu": "auto"},
    ],
)
def test_what_the_script_must_fill_stays(tmp_path, file):
    assert made(file, tmp_path=tmp_path, auto="script") == file
