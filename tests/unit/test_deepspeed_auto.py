"""Values that are `auto`: who fills them, with what, and what nobody can fill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.configs.deepspeed_config import build
from orchestrator.configs.hidden_size import hidden_size
from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec, ModelSpec

POOL = HostPool((Host("a", (0, 1)), Host("b", (0, 1))))
SIZES = {
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
}
ACCELERATE_FILLS = {
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto"}},
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {
            "warmup_min_lr": "auto",
            "warmup_max_lr": "auto",
            "warmup_num_steps": "auto",
            "total_num_steps": "auto",
        },
    },
    "zero_optimization": {"stage": 3, **SIZES},
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
}


def built(file, tmp_path, *, launcher="torchrun", model=None, **fields):
    (tmp_path / "ds.json").write_text(json.dumps(file))
    spec = DeepSpeedSpec.model_validate({"config_file": "ds.json", **fields})
    about = None if model is None else ModelSpec.model_validate(model)
    return build(spec, POOL, tmp_path, launcher=launcher, model=about)


def problems(*args, **options):
    with pytest.raises(JobFileError) as caught:
        built(*args, **options)
    return [str(problem) for problem in caught.value.problems]


def test_the_third_scenario_of_accelerates_documents(tmp_path):
    """Arguments of `accelerate launch` fill what the file calls auto; batch sizes are left for prepare."""
    file = {
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": "auto",
            "stage3_gather_16bit_weights_on_model_save": "auto",
            "offload_optimizer": {"device": "auto"},
            "offload_param": {"device": "auto"},
        },
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "steps_per_print": 2000000,
    }
    found = built(
        file,
        tmp_path,
        launcher="accelerate",
        precision="fp16",
        zero_stage=3,
        gradient_accumulation_steps=5,
        gradient_clipping=1.0,
        offload_param="cpu",
        offload_optimizer="nvme",
        offload_optimizer_nvme_path="/nvme",
        zero3_save_16bit_model=True,
    )
    assert found.config == {
        "bf16": {"enabled": False},
        "fp16": {"enabled": True, "auto_cast": True},
        "zero_optimization": {
            "stage": 3,
            "stage3_gather_16bit_weights_on_model_save": True,
            "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"},
            "offload_param": {"device": "cpu"},
        },
        "gradient_clipping": 1.0,
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": 5,
        "steps_per_print": 2000000,
    }
    assert set(found.unresolved) == {"train_batch_size", "train_micro_batch_size_per_gpu"}


def test_what_accelerate_fills_is_left_to_it(tmp_path):
    found = built(ACCELERATE_FILLS, tmp_path, launcher="accelerate")
    assert found.config == ACCELERATE_FILLS
    assert len(found.unresolved) == 12


def test_sizes_follow_the_hidden_size(tmp_path):
    file = {"zero_optimization": {"stage": 3, **SIZES}}
    found = built(file, tmp_path, model={"hidden_size": 1023})
    assert found.config["zero_optimization"] == {
        "stage": 3,
        "reduce_bucket_size": 1023 * 1023,
        "stage3_prefetch_bucket_size": 941876,  # int(0.9 * 1023²), as Accelerate cuts it
        "stage3_param_persistence_threshold": 10230,
    }
    assert [note.what for note in found.resolved][2] == (
        "zero_optimization.stage3_param_persistence_threshold was auto and is 10230 now (hidden size 1023)"
    )


def test_fields_may_say_auto_too():
    spec = DeepSpeedSpec.model_validate({"zero_stage": 3, "reduce_bucket_size": "auto"})
    model = ModelSpec.model_validate({"hidden_size": 64})
    assert build(spec, POOL, Path("/"), model=model).config["zero_optimization"]["reduce_bucket_size"] == 4096


def test_what_no_script_fills_is_given_accelerates_default(tmp_path):
    file = {
        "zero_optimization": {
            "stage": "auto",
            "offload_param": {"device": "auto", "nvme_path": "auto"},
            "stage3_gather_16bit_weights_on_model_save": "auto",
        },
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_micro_batch_size_per_gpu": 1,
    }
    found = built(file, tmp_path).config
    assert found["zero_optimization"] == {
        "stage": 2,
        "offload_param": {"device": "none"},
        "stage3_gather_16bit_weights_on_model_save": False,
    }
    assert (found["fp16"], found["gradient_clipping"]) == ({"enabled": False}, 1.0)
    assert (found["gradient_accumulation_steps"], found["train_batch_size"]) == (1, 4)


@pytest.mark.parametrize(
    ("file", "options", "expected"),
    [
        (
            {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}},
            {},
            (
                "ds.json:1: zero_optimization.reduce_bucket_size is auto and nobody fills it "
                "(got auto)\n  fix: write a number, or the model's width as model.hidden_size, or auto: "
                "script under deepspeed, if the script fills it (Accelerate's prepare, HF Trainer)"
            ),
        ),
        (
            {"train_micro_batch_size_per_gpu": "auto"},
            {},
            (
                "deepspeed.micro_batch_per_gpu: train_micro_batch_size_per_gpu is auto and nobody fills it "
                "(got auto)\n  fix: add micro_batch_per_gpu, or auto: script under deepspeed, if the script "
                "fills it (Accelerate's prepare, HF Trainer)"
            ),
        ),
        (
            {"zero_optimization": {"stage": 3, "sub_group_size": "auto"}},
            {"launcher": "accelerate"},
            (
                "ds.json:1: zero_optimization.sub_group_size is auto and nobody fills it (got auto)"
                "\n  fix: write a value, or remove it: neither Accelerate's prepare nor HF Trainer fills "
                "this one"
            ),
        ),
        (
            {"zero_optimization": {"stage": 1}, "pipeline": {"stages": "auto"}},
            {"launcher": "accelerate"},
            (
                "ds.json:1: pipeline.stages is auto and nobody fills it (got auto)\n  fix: remove it: auto "
                "is DeepSpeed's default, and Accelerate's prepare refuses the word"
            ),
        ),
        (
            {"zero_optimization": {"stage": 3}},
            {"overrides": {"communication_data_type": "auto"}},
            (
                "deepspeed.overrides.communication_data_type: communication_data_type is auto and nobody "
                "fills it (got auto)\n  fix: write a value, or remove it"
            ),
        ),
    ],
)
def test_what_nobody_fills_is_an_error(tmp_path, file, options, expected):
    assert [each.replace(f"{tmp_path}/", "") for each in problems(file, tmp_path, **options)] == [expected]


@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_hf_trainer_fills_more_than_accelerate(tmp_path, launcher):
    file = {"optimizer": {"type": "AdamW", "params": {"betas": "auto"}}, "train_batch_size": 4}
    found = built(file, tmp_path, auto="script", launcher=launcher)
    assert found.unresolved == ("optimizer.params.betas",)
    assert [str(warning) for warning in found.warnings] == [
        (
            f"{tmp_path / 'ds.json'}:1: optimizer.params.betas is auto, which only HF Trainer fills: "
            "Accelerate's prepare refuses it (got auto)\n  fix: write a value, unless the script uses Trainer"
        )
    ]


def test_what_deepspeed_calls_auto_itself_stays(tmp_path):
    file = {
        "pipeline": {"stages": "auto"},
        "data_types": {"keep_in_fp32_modules": "auto"},
        "zero_optimization": {"stage": 2, "zenflow": {"select_strategy": "auto"}},
    }
    found = built(file, tmp_path)
    assert (found.config, found.unresolved, found.resolved) == (file, (), ())


def test_a_number_that_follows_from_the_others_is_no_default(tmp_path):
    file = {
        "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": "auto",
    }
    found = built(file, tmp_path)
    assert (found.config["gradient_accumulation_steps"], found.resolved) == (2, ())


def test_without_a_file_accelerate_is_left_the_batch_sizes_that_no_field_gives():
    def batch(launcher, **fields):
        spec = DeepSpeedSpec.model_validate({"zero_stage": 2, **fields})
        config = build(spec, POOL, Path("/"), launcher=launcher).config
        names = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        return [config.get(name) for name in names]

    assert batch("accelerate") == ["auto", "auto", "auto"]
    assert batch("accelerate", gradient_accumulation_steps=4) == ["auto", "auto", 4]
    assert batch("accelerate", micro_batch_per_gpu=2) == [8, 2, 1]
    assert batch("torchrun") == [None, None, None]


def test_a_configuration_without_batch_sizes_is_warned_of(tmp_path):
    (warning,) = built({"zero_optimization": {"stage": 2}}, tmp_path).warnings
    assert str(warning) == (
        "deepspeed: no batch size is given, and DeepSpeed refuses a configuration without one"
        "\n  fix: add micro_batch_per_gpu, unless the script adds it"
    )


def test_the_user_decides_who_fills(tmp_path):
    file = {"optimizer": {"params": {"lr": "auto"}}}
    (one,) = problems(file, tmp_path, launcher="accelerate", auto="resolve")
    assert one.startswith(f"{tmp_path / 'ds.json'}:1: optimizer.params.lr is auto and nobody fills it")
    assert "\n  fix: write a value, or auto: script under deepspeed" in one


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"hidden_size": 768}, 768),
        ({"d_model": 1024}, 1024),
        ({"n_embd": 1280}, 1280),
        ({"hidden_sizes": [64, 256, 128]}, 256),
        ({"text_config": {"hidden_size": 4096}, "vision_config": {"hidden_size": 1}}, 4096),
        ({"model_type": "unheard-of"}, None),
        ({"hidden_sizes": [], "hidden_size": True, "d_model": -1, "text_config": 3}, None),
        ({"hidden_size": None, "text_config": {"hidden_sizes": [8, 16]}}, 16),
        ([], None),
    ],
)
def test_the_hidden_size_is_read_from_a_models_configuration(tmp_path, config, expected):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    for name in ("model", "model/config.json", str(tmp_path / "model")):
        assert hidden_size(ModelSpec(config=name), tmp_path, {}) == expected


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_the_hidden_size_is_found_in_the_hubs_cache(tmp_path, variable):
    inside = {"HF_HOME": "hub", "HF_HUB_CACHE": ".", "XDG_CACHE_HOME": "huggingface/hub"}[variable]
    repository = tmp_path / inside / "models--meta-llama--Llama-2-7b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text('{"hidden_size": 4096}')
    model = ModelSpec(config="meta-llama/Llama-2-7b")
    assert hidden_size(model, Path("/nowhere"), {variable: str(tmp_path)}) == 4096
    assert hidden_size(model, Path("/nowhere"), {"HF_HOME": "/nowhere"}) is None
