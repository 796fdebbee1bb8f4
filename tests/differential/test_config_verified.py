"""What we prepare, given to the installed DeepSpeed and Accelerate by the program that `plan` starts."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from orchestrator.configs import accelerate_config, verify
from orchestrator.configs.deepspeed_config import build
from orchestrator.configs.versions import ADDED
from orchestrator.job import load_job
from orchestrator.prepare import pool_of
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.train,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed installed"),
    pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs Accelerate installed"),
]

JOBS = sorted(
    path for path in (ROOT / "examples").glob("*/*.yaml") if "cluster:" in path.read_text(encoding="utf-8")
)


def ask(config: dict, accelerate: dict | None = None, world: int = 4) -> verify.Verified:
    files = {"ds_config.json": json.dumps(config)}
    if accelerate is not None:
        files["accelerate.yaml"] = yaml.safe_dump(accelerate)
    told = verify.start(files, sys.executable, world).result(120)
    assert told.deepspeed
    assert told.accelerate
    return told


def accelerate_file(config: dict, **more) -> dict:
    made = accelerate_config.build(config, ds_config_path="ds_config.json", world_size=4, num_machines=2)
    made["deepspeed_config"] |= more.pop("deepspeed", {})
    return made | more


def zero3(**more) -> dict:
    zero = {"stage": 3} | more.pop("zero", {})
    return {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero} | more


ONE_AFTER_ANOTHER = """
import os, sys
import accelerate.commands.launch, deepspeed.runtime.config
from orchestrator.configs.installed.__main__ import main

for folder, world in zip(sys.argv[1::2], sys.argv[2::2]):
    if not os.fork():
        os._exit(main(["installed", folder, world]))
    os.wait()
"""  # the program for each example, in processes that have imported torch already


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return what was said of every example with a deepspeed section, by the path of its job file."""
    folders = {path: tmp_path_factory.mktemp("example") for path in JOBS}
    worlds = {path: _write(path, folder) for path, folder in folders.items()}
    asked = [path for path in JOBS if worlds[path]]
    request = [str(word) for path in asked for word in (folders[path], worlds[path])]
    argv = [sys.executable, "-c", ONE_AFTER_ANOTHER, *request]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"deepspeed"')]
    answers = [verify._verified(json.loads(line), 0) for line in lines]
    return dict(zip(asked, answers, strict=True))


def _write(path: Path, folder: Path) -> int:
    """Write the files of an example; return its number of ranks, 0 if it has no deepspeed section."""
    beside = path.with_suffix("")  # what `init` puts beside a template's job file
    job = load_job(path, base_dir=beside if beside.is_dir() else None)
    spec, pool = job.spec, pool_of(job.spec.cluster)
    if spec.deepspeed is None:
        return 0
    config = build(spec.deepspeed, pool, job.base_dir, launcher=spec.train.launcher, model=spec.model).config
    (folder / "ds_config.json").write_text(json.dumps(config))
    if isinstance(config.get("zero_optimization"), dict):
        accelerate = accelerate_config.build(
            config,
            ds_config_path="ds_config.json",
            world_size=pool.world_size,
            num_machines=len(pool.hosts),
            zero3_init=spec.deepspeed.zero3_init,
        )
        (folder / "accelerate.yaml").write_text(yaml.safe_dump(accelerate))
    return pool.world_size


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.relative_to(ROOT / "examples").as_posix())
def test_every_example_is_taken_without_loss(prepared, path):
    told = prepared.get(path)
    if told is None:
        pytest.skip("has no deepspeed section")
    assert told.deepspeed
    assert told.accelerate
    assert [str(problem) for problem in told.problems] == []
    assert told.dropped == ()


def test_there_are_examples_to_ask_about(prepared):
    assert len(prepared) >= 6


def test_keys_that_nobody_reads_are_found_and_the_right_ones_named():
    told = ask(
        zero3(
            zero=dict.fromkeys([key.rpartition(".")[2] for key in ADDED], "auto")  # all of these are read
            | {"reduce_bucket_size": "auto", "stage3_max_live_paramters": "auto"},
            gradient_cliping=1.0,
            activation_checkpointing={"partition_activatons": True, "cpu_checkpointing": True},
            optimizer={"type": "AdamW", "params": {"lr": "auto", "whatever_torch_takes": 1}},
            tensorboard={"enabled": True},
        ),
        accelerate_file(zero3(), deepspeed={"zero3_init_flg": True}),
    )
    assert told.problems == ()
    assert {path: told.meant[path][0] for path in told.dropped} == {
        "gradient_cliping": "gradient_clipping",
        "activation_checkpointing.partition_activatons": "partition_activations",
        "zero_optimization.stage3_max_live_paramters": "stage3_max_live_parameters",
        "accelerate.yaml: deepspeed_config.zero3_init_flg": "zero3_init_flag",
    }


def test_all_that_deepspeed_refuses_is_found_at_once():
    told = ask(
        zero3(
            zero={
                "overlap_comm": "maybe",
                "reduce_bucket_siz": 5,
                "offload_optimizer": {"device": "gpu", "pin_memry": True},
                "mics_shard_size": 2,
            },
            tensorboard={"enabeld": True},
            communication_data_type="fp64",
            amp={"enabled": True},
            fp16={"enabled": True, "loss_scale": -1},
            train_batch_size=17,
        )
    )
    about = {problem.what.split()[0].rstrip(":") for problem in told.problems}
    assert about == {
        "zero_optimization.overlap_comm",
        "zero_optimization.reduce_bucket_siz",
        "zero_optimization.offload_optimizer.device",
        "zero_optimization.offload_optimizer.pin_memry",
        "zero_optimization.mics_shard_size",
        "tensorboard.enabeld",
        "communication_data_type",
        "amp",
        "fp16.loss_scale",
        "train_batch_size",
    }
    by_key = {problem.what.split()[0].rstrip(":"): problem for problem in told.problems}
    assert by_key["zero_optimization.offload_optimizer.pin_memry"].fix == "did you mean pin_memory?"
    assert by_key["zero_optimization.overlap_comm"].value == '"maybe"'
    assert by_key["zero_optimization.overlap_comm"].fix == "write true or false"


def test_the_world_is_the_one_that_is_given():
    config = zero3(train_batch_size=8, gradient_accumulation_steps=2)
    running = [verify.start({"ds_config.json": json.dumps(config)}, sys.executable, n) for n in (4, 3)]
    fits, fits_not = (process.result(120) for process in running)
    assert fits.problems == ()
    assert "8 != 1 * 2 * 3" in fits_not.problems[0].what


def test_the_world_that_is_not_given_is_the_one_of_the_batch():
    batch = {"train_batch_size": 8, "gradient_accumulation_steps": 2, "train_micro_batch_size_per_gpu": 2}
    assert ask(zero3(**batch), world=0).problems == ()


AMBIGUOUS = {  # scenario 1 of the seeds: both files say the same, and every rank raises
    "mixed_precision": "bf16",
    "deepspeed": {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "offload_optimizer_device": "cpu",
        "zero_stage": 2,
    },
}


def test_the_ambiguity_that_accelerate_refuses_is_told_with_its_keys():
    told = ask(zero3(), accelerate_file(zero3(), **AMBIGUOUS))
    (problem,) = told.problems
    for key in ("mixed_precision", *AMBIGUOUS["deepspeed"]):
        assert key in problem.what
    assert "zero3_init_flag" not in problem.what
    assert problem.where == "accelerate.yaml"


def test_an_unknown_key_of_accelerate_is_told_in_its_own_words():
    (problem,) = ask(zero3(), accelerate_file(zero3(), mixed_precison="no")).problems
    assert "mixed_precison" in problem.what


def test_nvme_paths_that_accelerate_drops_are_told():
    made = accelerate_file(zero3())
    made["deepspeed_config"] = {
        "zero_stage": 3,
        "offload_param_device": "nvme",
        "offload_param_nvme_path": "/local/nvme",
        "deepspeed_multinode_launcher": "standard",
    }
    told = ask(zero3(), made)
    assert told.dropped == ("accelerate.yaml: deepspeed_config.offload_param_nvme_path",)
