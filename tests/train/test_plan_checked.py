"""`orchestrate plan` with everything it starts: the model's configuration and the installed classes."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from tests.samples import orchestrate

pytestmark = pytest.mark.train


def test_a_plan_counts_the_model_and_asks_the_installed_classes(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("deepspeed")
    config = transformers.LlamaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=99
    )
    config.save_pretrained(tmp_path / "model")
    (tmp_path / "train.py").touch()
    (tmp_path / "job.yaml").write_text(
        "cluster: {backend: local, nodes: 2, slots: 2}\n"
        "train: {script: train.py, launcher: accelerate}\n"
        "deepspeed: {zero_stage: 3, hpz: node, micro_batch_per_gpu: 1, precision: bf16}\n"
        "model: {config: model, sequence_length: 128, lora: {r: 4}}\n"
    )
    done = orchestrate("plan", "job.yaml", "--json", cwd=tmp_path)
    plan = json.loads(done.stdout)
    assert done.returncode == 0, plan["findings"]
    expected = {name: version(name) for name in ("deepspeed", "accelerate")}
    assert plan["checked"]["versions"] == expected
    model = plan["estimates"]["model"]
    assert (model["hidden_size"], model["layers"], model["trainable"]) == (64, 2, 2 * 2 * 4 * (64 + 64))
    assert plan["seconds"]["model.config"] > 0
