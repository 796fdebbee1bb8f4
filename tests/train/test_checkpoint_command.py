"""Weights and metrics of tags that DeepSpeed itself saved, on two CPU ranks, with the real commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from orchestrator.checkpoints import sightings
from orchestrator.checkpoints.metric import metric_of
from tests.samples import orchestrate
from tests.train.ranks import run_ranks

if TYPE_CHECKING:
    from pathlib import Path

RANKS = 2
SCRIPT = """
import sys, torch, deepspeed
from deepspeed.utils import safe_get_full_fp32_param
from transformers import LlamaConfig, LlamaForCausalLM

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else compiled, for a minute

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
"""
COMPARE = """
import sys, torch
from transformers import AutoModelForCausalLM
for out, expected, dtype in zip(*[iter(sys.argv[1:])] * 3):
    model, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True, dtype=dtype)
    assert not told["missing_keys"] and not told["unexpected_keys"], (out, told)
    wanted, found = torch.load(expected), dict(model.named_parameters())
    assert found.keys() == wanted.keys(), (out, found.keys() ^ wanted.keys())
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor.to(found[name].dtype), rtol=0, atol=0)
"""
MODELS = {  # name: (folder, words, type of the numbers)
    "pieces": ("stage3", ["--max-shard-size", "20kB"], "float32"),
    "stage1": ("stage1", ["--dtype", "bf16"], "bfloat16"),
    "stage0": ("stage0", [], "float32"),
    "whole": ("stage3/whole", ["--config", "{stage3}"], "bfloat16"),
}

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Return a folder with stage0, stage1 (a tag each) and stage3 (three tags, whole 16-bit weights)."""
    folder = tmp_path_factory.mktemp("saved")
    script = folder / "save.py"
    script.write_text(SCRIPT)
    run_ranks(RANKS, script, folder)
    return folder


@pytest.fixture(scope="module")
def models(saved) -> dict[str, dict]:
    """Return what the command said of each model that it made."""

    def make(name):
        folder, words, _ = MODELS[name]
        more = [word.format(stage3=saved / "stage3") for word in words]
        done = orchestrate(
            "checkpoint", "consolidate", str(saved / folder), str(saved / "out" / name), *more, "--json"
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) | {"stderr": done.stderr}

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(MODELS, pool.map(make, MODELS), strict=True))


def test_from_pretrained_loads_what_the_engine_had(saved, models):
    """To the last bit, with tied weights and with a frozen parameter."""
    words = []
    for name, (folder, _, dtype) in MODELS.items():
        words += [saved / "out" / name, saved / folder.split("/")[0] / "expected.pth", dtype]
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_what_it_takes_is_said_first_and_what_was_made_last(saved, models):
    told = models["pieces"]
    assert "parameters; needs" in told["stderr"].splitlines()[0]
    assert (told["tag"], told["dtypes"], told["tied"]) == (
        "global_step3",
        ["float32"],
        {"lm_head.weight": "model.embed_tokens.weight"},
    )
    index = json.loads((saved / "out" / "pieces" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(told["files"])
    assert len(told["files"]) > 2
    counts = {name: model["parameters"] for name, model in models.items()}
    assert index["metadata"]["total_size"] == 4 * told["parameters"]
    assert len(set(counts.values())) == 1, counts
    assert models["whole"]["dtypes"] == ["bfloat16"]


def test_nothing_but_whole_folders_is_left(saved, models):
    assert {path.name for path in (saved / "out").iterdir()} == set(MODELS)
    for name in MODELS:
        assert {path.suffix for path in (saved / "out" / name).iterdir()} == {".safetensors", ".json"}


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


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_files_are_what_the_library_reads(tmp_path, dtype):
    import torch
    from safetensors.torch import load_file

    from orchestrator.checkpoints.gather.source import UnfitError
    from orchestrator.checkpoints.gather.write import planned, write

    tensors = {
        "scalar": torch.tensor(1.5),
        "none": torch.empty(0, 3),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.ones(3, dtype=torch.float16),
        "brain": torch.ones(5, dtype=torch.bfloat16),
        "count": torch.tensor([2**40], dtype=torch.int64),
        "mask": torch.tensor([True, False]),
    }
    (file,) = planned(tensors, dtype, 10**9)
    write(file, tmp_path, dict(tensors))
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.bfloat16() if dtype and tensor.is_floating_point() else tensor
        assert read[name].dtype == wanted.dtype
        assert torch.equal(read[name], wanted), name
    with pytest.raises(UnfitError, match="complex64"):
        planned({"c": torch.ones(2, dtype=torch.complex64)}, dtype, 10)
    assert len(planned(tensors, dtype, 1)) == len(tensors)
