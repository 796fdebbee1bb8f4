"""Import and export again: Accelerate and DeepSpeed make the same of it as of the original.

The originals are the example configurations of Accelerate's and PEFT's documentation and of T0's script.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil

import pytest
import yaml

from orchestrator.importing.exporting import export
from orchestrator.importing.make import Wish, make
from orchestrator.job import load_job
from tests.samples import ROOT

SEEDS = ROOT / "tests" / "data" / "seeds"
DS_NAMES = {
    "zero2_file.yaml": "zero_stage2_config.json",
    "zero3_offload_file.yaml": "zero_stage3_offload_config.json",
}
SAME = (
    "num_machines",
    "num_processes",
    "main_process_ip",
    "main_process_port",
    "distributed_type",
    "rdzv_backend",
)
FIELDS = (
    *(
        "ZERO_STAGE",
        "OFFLOAD_OPTIMIZER_DEVICE",
        "OFFLOAD_PARAM_DEVICE",
        "ZERO3_INIT",
        "ZERO3_SAVE_16BIT_MODEL",
    ),
    *("CONFIG_FILE", "MOE_LAYER_CLS_NAMES"),
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a folder with the originals and their scripts; no variable of Accelerate is set."""
    for path in SEEDS.iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(SEEDS / "scenario1_ds.json", tmp_path / "ds_config.json")
    (tmp_path / "train.py").touch()
    (tmp_path / "t0.py").touch()
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("ACCELERATE_"):
            monkeypatch.delenv(name)
    return tmp_path


def again(here, *sources, **wish):
    """Import, export for Accelerate, and return the path of what was exported."""
    path = here / "job.yaml"
    wish.setdefault("script", None if len(sources) > 1 else "train.py")
    made = make(Wish(sources, path, here, **wish), {"HOME": str(here)})
    path.write_text(made.text)
    exported = export("accelerate", load_job(path), here / "out" / "accelerate.yaml")
    (here / "out").mkdir()
    for target, text in exported.files:
        target.write_text(text)
    return exported.files[0][0]


def meaning(path, monkeypatch):
    """Return what Accelerate makes of a configuration: its own class, and DeepSpeed's configuration.

    As in `prepare_deepspeed_cmd_env` and `AcceleratorState`.
    """
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DeepSpeedPlugin

    config = load_config_from_file(str(path))
    section = {key.upper(): value for key, value in config.deepspeed_config.items()}
    with monkeypatch.context() as patch:
        for name in FIELDS:
            value = next(
                (v for k, v in section.items() if k.removesuffix("_FLAG").removeprefix("DEEPSPEED_") == name),
                None,
            )
            if value is not None:
                text = str(value) if name == "CONFIG_FILE" else str(value).lower()
                patch.setenv(f"ACCELERATE_DEEPSPEED_{name}", text)
        for name in ("GRADIENT_ACCUMULATION_STEPS", "GRADIENT_CLIPPING"):
            if name in section:
                patch.setenv(f"ACCELERATE_{name}", str(section[name]))
        fields = [*config.deepspeed_config, *(["mixed_precision"] if config.mixed_precision else [])]
        patch.setenv("ACCELERATE_CONFIG_DS_FIELDS", ",".join(fields))
        plugin = DeepSpeedPlugin()
        plugin.set_mixed_precision(config.mixed_precision or "no")
    return config, plugin


def normal(config):
    """Return a configuration without what says nothing: null, offload to none, a precision that is off."""
    if not isinstance(config, dict):
        return None if config == math.inf else config
    found = {key: normal(value) for key, value in config.items()}
    if found.get("stage3_gather_16bit_weights_on_model_save") is False:
        del found["stage3_gather_16bit_weights_on_model_save"]  # DeepSpeed's default
    return {
        key: value
        for key, value in found.items()
        if value is not None
        and value not in ({}, {"device": "none"}, {"enabled": False})
        and key != "steps_per_print"
    }


@pytest.mark.filterwarnings("ignore:DeepSpeed Zero3 Init flag")
@pytest.mark.parametrize(
    "name", ["peft_zero3_offload.yaml", "zero2_plugin.yaml", "zero3_offload_plugin.yaml", "scenario2.yaml"]
)
def test_an_accelerate_configuration_means_the_same(name, here, monkeypatch):
    theirs, plugin = meaning(here / name, monkeypatch)
    ours, exported = meaning(again(here, name), monkeypatch)
    assert {key: getattr(ours, key) for key in SAME} == {key: getattr(theirs, key) for key in SAME}
    assert normal(exported.deepspeed_config) == normal(plugin.deepspeed_config)
    assert exported.zero3_init_flag == plugin.zero3_init_flag
    assert exported.zero_stage == plugin.zero_stage


@pytest.mark.filterwarnings("ignore:DeepSpeed Zero3 Init flag")
@pytest.mark.parametrize("name", DS_NAMES)
def test_a_deepspeed_file_comes_back_as_it_is(name, here, monkeypatch):
    """Both name `mixed_precision` beside the file, which Accelerate 1.15 refuses: the file is preferred."""
    document = yaml.safe_load((here / name).read_text())
    document["deepspeed_config"]["deepspeed_config_file"] = str(here / DS_NAMES[name])
    (here / name).write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match="mixed_precision"):
        meaning(here / name, monkeypatch)
    ours, exported = meaning(again(here, name, prefer="file"), monkeypatch)
    del document["mixed_precision"]
    (here / name).write_text(yaml.safe_dump(document))
    theirs, plugin = meaning(here / name, monkeypatch)
    assert {key: getattr(ours, key) for key in SAME} == {key: getattr(theirs, key) for key in SAME}
    assert normal(exported.deepspeed_config) == normal(plugin.deepspeed_config)


def test_scenario_1_can_be_settled_either_way(here, monkeypatch):
    with pytest.raises(ValueError, match=r"gradient_accumulation_steps.*zero3_save_16bit_model"):
        meaning(here / "scenario1.yaml", monkeypatch)
    by_file = meaning(again(here, "scenario1.yaml", prefer="file"), monkeypatch)[1].deepspeed_config
    shutil.rmtree(here / "out")
    by_fields = meaning(again(here, "scenario1.yaml", prefer="fields"), monkeypatch)[1].deepspeed_config
    said = json.loads((here / "ds_config.json").read_text())
    assert normal(by_file) == normal(said)
    assert by_fields["gradient_accumulation_steps"] == 1
    assert by_fields["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert by_fields["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_scenario_3_fields_fill_the_autos(here, monkeypatch):
    """The command of the documentation; what it printed there is what the job makes of it."""
    text = (
        "accelerate launch --config_file scenario2.yaml --deepspeed_config_file scenario3_ds.json "
        "--mixed_precision=fp16 --zero_stage=3 --gradient_accumulation_steps=5 --gradient_clipping=1.0 "
        "--offload_param_device=cpu --offload_optimizer_device=nvme --offload_optimizer_nvme_path=/nvme "
        "--zero3_save_16bit_model=true train.py"
    )
    found = meaning(again(here, *shlex.split(text)), monkeypatch)[1].deepspeed_config
    assert normal(found) == {
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
    }


@pytest.mark.parametrize("name", ["t0_ds.json", "zeropp.json", "scenario1_ds.json"])
def test_a_deepspeed_command_with_a_json_keeps_its_meaning(name, here):
    words = (
        "deepspeed",
        "--num_gpus",
        "8" if name == "zeropp.json" else "2",
        "t0.py",
        "--deepspeed_config",
        name,
    )
    path = here / "job.yaml"
    made = make(Wish(words, path, here), {})
    path.write_text(made.text.replace("deepspeed:\n", "deepspeed:\n  auto: script\n"))
    (_, text), *_ = export("deepspeed", load_job(path), None).files
    said, found = json.loads((here / name).read_text()), json.loads(text)
    zero = said["zero_optimization"]
    zero = {k: round(v) if isinstance(v, float) else v for k, v in zero.items()}
    assert normal(found["zero_optimization"]).items() >= normal(zero).items()
    assert found.get("train_batch_size") == said.get("train_batch_size", found.get("train_batch_size"))
