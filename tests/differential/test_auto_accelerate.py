"""What we make of `auto` against what Accelerate itself makes of it, on one real rank."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from orchestrator.configs.deepspeed_config import build
from orchestrator.hosts import Host, HostPool
from orchestrator.job import DeepSpeedSpec, ModelSpec

pytestmark = pytest.mark.train

ONE = HostPool((Host("a", (0,)),))
PREPARE = """
import json, os, sys
import deepspeed, torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
class Config:
    hidden_size = int(sys.argv[2])
class Model(torch.nn.Linear):
    config = Config()
plugin = DeepSpeedPlugin(hf_ds_config=json.loads(sys.argv[1]), zero3_init_flag=False)
accelerator = Accelerator(deepspeed_plugin=plugin)
model = Model(8, 8)
data = torch.utils.data.DataLoader([torch.zeros(8)] * 8, batch_size=2)
optimizer = torch.optim.AdamW(model.parameters())
accelerator.prepare(model, optimizer, data)
plugin.deepspeed_config.pop("steps_per_print")
print("CONFIG", json.dumps(accelerator.deepspeed_config), flush=True)
os._exit(0)
"""


def said_by(program, *args, **environ):
    env = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")}
    env |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    env |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true", "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-W", "ignore", "-c", program, *map(str, args)]
    done = subprocess.run(argv, env=env | environ, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("CONFIG ")]
    assert lines, done.stderr[-2000:]
    return json.loads(lines[0].removeprefix("CONFIG "))


def ours(tmp_path, file, *, launcher, model=None, **fields):
    (tmp_path / "ds.json").write_text(json.dumps(file))
    spec = DeepSpeedSpec.model_validate({"config_file": "ds.json", **fields})
    return build(spec, ONE, tmp_path, launcher=launcher, model=model).config


def test_sizes_and_defaults_are_those_that_prepare_fills(tmp_path):
    names = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
    file = {
        "zero_optimization": {
            "stage": 3,
            "stage3_gather_16bit_weights_on_model_save": "auto",
            **dict.fromkeys(names, "auto"),
        },
        "bf16": {"enabled": True},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_micro_batch_size_per_gpu": 2,
        "train_batch_size": "auto",
    }
    theirs = said_by(PREPARE, json.dumps(file), 1023)
    config = ours(tmp_path, file, launcher="torchrun", model=ModelSpec(hidden_size=1023))
    assert {key: theirs[key] for key in config} == config
