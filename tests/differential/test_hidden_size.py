"""The width that we read from a model's config.json, against the one that Accelerate and HF Trainer see."""

from __future__ import annotations

import pytest
from needs import needs

from orchestrator.configs.hidden_size import hidden_size
from orchestrator.job import ModelSpec

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours
installed = needs("transformers")

MODELS = [
    *("bart", "bert", "bloom", "ctrl", "distilbert", "falcon", "flaubert", "gpt2", "gpt_neox", "gptj"),
    *("llama", "mistral", "mixtral", "mpt", "opt", "phi", "qwen2", "qwen3_moe", "swin2sr", "t5", "whisper"),
    *("segformer", "regnet", "xlm"),  # several widths
    *("gemma3", "llava", "mllama", "qwen2_vl"),  # a text model inside
]


def in_python(config) -> int:
    """Return what `Accelerator._prepare_deepspeed` and HF Trainer's `trainer_config_finalize` take."""
    for inner in (config, getattr(config, "text_config", None)):
        if hasattr(inner, "hidden_size"):
            return inner.hidden_size
        if hasattr(inner, "hidden_sizes"):
            return max(inner.hidden_sizes)
    raise AssertionError


@pytest.mark.parametrize("kind", MODELS)
def test_the_file_tells_what_the_configuration_tells(kind, tmp_path):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]()
    config.save_pretrained(tmp_path)
    assert hidden_size(ModelSpec(config=str(tmp_path)), tmp_path, {}) == in_python(config)
