"""Accelerate's fields that we write make the DeepSpeed configuration that they were made from."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from needs import needs

from orchestrator.importing.accelerate_plugin import as_fields

pytestmark = pytest.mark.filterwarnings("ignore:DeepSpeed Zero3 Init flag")
installed = needs("accelerate.utils", "deepspeed")
AUTO = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}
NAMES = {  # as `prepare_deepspeed_cmd_env` of Accelerate 1.15 has them
    "zero_stage": "ACCELERATE_DEEPSPEED_ZERO_STAGE",
    "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
    "offload_optimizer_device": "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE",
    "offload_param_device": "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE",
    "zero3_save_16bit_model": "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL",
}


def theirs(fields):
    """Return what DeepSpeedPlugin makes of the fields in a rank."""
    from accelerate.utils import DeepSpeedPlugin

    environ = {NAMES[key]: str(value).lower() for key, value in fields.section.items() if key in NAMES}
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        plugin = DeepSpeedPlugin()
        plugin.set_mixed_precision(fields.mixed_precision)
    return plugin.deepspeed_config


def normal(config):
    """Return a configuration without what says nothing."""
    if not isinstance(config, dict):
        return config
    found = {key: normal(value) for key, value in config.items() if key != "steps_per_print"}
    silent = (None, False, math.inf, {}, {"device": "none"}, "auto")
    return {key: value for key, value in found.items() if value not in silent}


sayable = st.fixed_dictionaries(
    {
        "zero_optimization": st.fixed_dictionaries(
            {"stage": st.integers(0, 3)},
            optional={
                "offload_optimizer": st.fixed_dictionaries({"device": st.sampled_from(["none", "cpu"])}),
                "offload_param": st.fixed_dictionaries({"device": st.sampled_from(["none", "cpu"])}),
                "stage3_gather_16bit_weights_on_model_save": st.booleans(),
            },
        ),
        "gradient_accumulation_steps": st.sampled_from([1, 4, "auto"]),
    },
    optional={"gradient_clipping": st.sampled_from([0.5, 1.0, "auto"])},
)
precisions = st.sampled_from(
    [
        {},
        {"fp16": {"enabled": False}, "bf16": {"enabled": False}},
        {"bf16": {"enabled": True}},
        {"fp16": {"enabled": True, "auto_cast": True}, "bf16": {"enabled": False}},
        {"bf16": {"enabled": True}, "fp16": {"enabled": False, "loss_scale": 0}},
    ]
)


@given(sayable, precisions)
def test_what_fields_can_say_comes_back(config, precision):
    config = {**AUTO, **config, **precision, "steps_per_print": 2000}
    fields = as_fields(config)
    assert fields.unsaid == ()
    expected = normal(config)
    if precision.get("fp16", {}).get("enabled") is False:
        expected.pop("fp16", None)  # loss_scale of a precision that is off
    assert normal(theirs(fields)) == expected


@pytest.mark.parametrize(
    ("config", "unsaid"),
    [
        ({"train_micro_batch_size_per_gpu": 4}, ["train_micro_batch_size_per_gpu"]),
        ({"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}}, ["zero_hpz_partition_size"]),
        ({"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}}, ["reduce_bucket_size"]),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/n"}}},
            ["offload_param.nvme_path"],
        ),
        ({"zero_optimization": {"offload_param": {"device": "cpu", "pin_memory": True}}}, ["pin_memory"]),
        ({"zero_optimization": {"offload_param": {"device": "none", "pin_memory": True}}}, []),
        ({"fp16": {"enabled": True}}, ["fp16.auto_cast"]),
        ({"fp16": {"enabled": True, "auto_cast": True, "loss_scale": 128}}, ["fp16.loss_scale"]),
        ({"fp16": {"enabled": "auto"}}, ["fp16.enabled"]),
        ({"gradient_clipping": 0}, ["gradient_clipping"]),
        ({"optimizer": {"type": "AdamW"}, "scheduler": {}}, ["optimizer"]),
        ({"wall_clock_breakdown": True}, ["wall_clock_breakdown"]),
        ({"wall_clock_breakdown": False, "steps_per_print": 10}, []),
    ],
)
def test_what_they_cannot_say_is_named(config, unsaid):
    found = as_fields(config).unsaid
    assert len(found) == len(unsaid)
    assert all(path.endswith(end) for path, end in zip(found, unsaid, strict=True))


def test_classes_of_moe_layers_have_a_field():
    fields = as_fields({"zero_optimization": {"stage": 3, "leaf_module": {"classes": ["A", "B"]}}})
    assert fields.section["deepspeed_moe_layer_cls_names"] == "A,B"
    assert fields.unsaid == ()
