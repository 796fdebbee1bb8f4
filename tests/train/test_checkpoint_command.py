"""Weights and metrics of tags that DeepSpeed itself saved, on two CPU ranks, with the real commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from orchestrator.checkpoints import sightings
from orchestrator.checkpoints.metric import metric_of
from tests.samples import orchestrate

if TYPE_CHECKING:
    from pathlib import Path

RANKS = 2
SCRIPT = """
import sys, torch, deepspeed
from deepspeed.utils import safe_get_full_fp32_param
from transformers import LlamaConfig, LlamaForCausalLM

def train(stage, folder):
    torch.manual_seed(1)
    shape = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=67, tie_word_embeddings=True))
    model.model.norm.weight.requires_grad_(False)  # as the base model of an adapter
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": stage == 3}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"torch_adam": True, "lr": 1e-2}},
        "bf16": {"enabled": stage > 0},
        "zero_optimization": zero,
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
    for step in range(1, 4):
        tokens = torch.randint(0, 67, (1, 8))
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
        if stage == 3 or step == 3:
            engine.save_checkpoint(folder, client_state={"loss": 5.0 - step})
    weights = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=stage == 3):
            whole = parameter.detach().float().clone()
        master = safe_get_full_fp32_param(parameter) if stage and parameter.requires_grad else None
        weights[name] = whole if master is None else master.float().clone()
    if stage == 3:
        engine.save_16bit_model(folder + "/whole", "pytorch_model.bin")
    if torch.distributed.get_rank() == 0:
        torch.save(weights, folder + "/expected.pth")
        model.config.save_pretrained(folder)

for stage in (0, 1, 3):
    train(stage, sys.argv[1] + f"/stage{stage}")
torch.distributed.destroy_process_group()
"""
COMPARE = """
import sys, torch
from transformers import AutoModelForCausalLM
model, told = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True, dtype=sys.argv[3])
assert not told["missing_keys"] and not told["unexpected_keys"], told
expected = torch.load(sys.argv[2])
found = dict(model.named_parameters())
assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
for name, tensor in expected.items():
    torch.testing.assert_close(found[name], tensor.to(found[name].dtype), rtol=0, atol=0)
print(len(found))
"""

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Return a folder with stage0, stage1 (a tag each) and stage3 (three tags, whole 16-bit weights)."""
    folder = tmp_path_factory.mktemp("saved")
    script = folder / "save.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    done = subprocess.run(
        [*launcher, script, folder],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def same(out: Path, expected: Path, dtype: str = "float32") -> None:
    """Load weights as a user does, and compare each with what the engine had: to the last bit."""
    words = [sys.executable, "-c", COMPARE, str(out), str(expected), dtype]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_shards_of_stage_3_become_a_model_in_several_files(saved, tmp_path):
    out = tmp_path / "model"
    words = ["--max-shard-size", "20kB", "--json"]
    done = orchestrate("checkpoint", "consolidate", str(saved / "stage3"), str(out), *words)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "parameters; needs" in done.stderr
    assert "of memory" in done.stderr
    assert (told["tag"], told["dtypes"]) == ("global_step3", ["float32"])
    assert len(told["files"]) > 2
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(told["files"])
    assert index["metadata"]["total_size"] == 4 * told["parameters"]
    assert {path.name for path in out.iterdir()} > {"config.json", "model.safetensors.index.json"}
    same(out, saved / "stage3" / "expected.pth")


@pytest.mark.parametrize(("stage", "dtype"), [(1, "bf16"), (0, None)])
def test_lower_stages_too(saved, tmp_path, stage, dtype):
    folder, out = saved / f"stage{stage}", tmp_path / "model"
    words = ["--dtype", dtype] if dtype else []
    done = orchestrate("checkpoint", "consolidate", str(folder), str(out), *words)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.glob("*.safetensors")] == ["model.safetensors"]
    same(out, folder / "expected.pth", "bfloat16" if dtype else "float32")


def test_whole_16_bit_weights_are_taken_as_they_are(saved, tmp_path):
    done = orchestrate(
        "checkpoint", "consolidate", str(saved / "stage3" / "whole"), str(tmp_path / "model"),
        "--config", str(saved / "stage3"), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dtypes"] == ["bfloat16"]
    same(tmp_path / "model", saved / "stage3" / "expected.pth", "bfloat16")


def test_a_broken_tag_is_not_consolidated(saved, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(saved / "stage3", folder)
    (folder / "global_step3" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()
    asked = orchestrate(
        "checkpoint", "consolidate", str(folder), str(tmp_path / "a"), "--tag", "global_step3"
    )
    assert asked.returncode == 2
    assert "1 of 2 optimizer shards are missing: rank 1" in asked.stderr
    assert "global_step1, global_step2" in asked.stderr
    last = orchestrate("checkpoint", "consolidate", str(folder), str(tmp_path / "a"), "--json")
    assert json.loads(last.stdout)["tag"] == "global_step2"


def test_metrics_of_client_state_decide_what_stays(saved, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(saved / "stage3", folder)
    assert [metric_of(seen, "loss") for seen in sightings(folder) if seen.step] == [4.0, 3.0, 2.0]
    words = ["--keep-last", "1", "--keep-best", "1", "--metric", "loss", "--best-is", "highest"]
    done = orchestrate("checkpoint", "prune", str(folder), *words)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.glob("global_step*")) == ["global_step1", "global_step3"]
    listed = json.loads(orchestrate("checkpoint", "list", str(folder), "--json").stdout)
    assert [(tag["name"], tag["complete"], tag["latest"]) for tag in listed["tags"] if tag["step"]] == [
        ("global_step1", True, False),
        ("global_step3", True, True),
    ]
