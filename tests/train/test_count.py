"""Models counted from their configurations, as the library itself and DeepSpeed count them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from orchestrator.huggingface import count as counting
from tests.samples import ROOT

pytestmark = pytest.mark.train

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
T5_3B = {"d_model": 1024, "d_ff": 16384, "num_layers": 24, "num_heads": 32, "d_kv": 128, "vocab_size": 32128}
T0_3B = {
    "d_model": 2048,
    "d_ff": 5120,
    "num_layers": 24,
    "num_heads": 32,
    "d_kv": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "architectures": ["T5Model"],
}
CONFIGS = {  # by kind: the class and what it is made with
    "t5": ("T5Config", T5_3B),
    "llama": ("LlamaConfig", {**SMALL, "dtype": "bfloat16", "max_position_embeddings": 512}),
    "gpt2": ("GPT2Config", {"architectures": ["GPT2LMHeadModel"]}),
    "bart": ("BartConfig", {}),
    "mixtral": ("MixtralConfig", {**SMALL, "num_key_value_heads": 2}),
}


@pytest.fixture(scope="module", autouse=True)
def transformers():
    """Return the library, imported where a test runs: a worker that collects these has no use for it."""
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def configs(transformers):
    return {name: getattr(transformers, kind)(**fields) for name, (kind, fields) in CONFIGS.items()}


@pytest.fixture(scope="module")
def folders(configs, tmp_path_factory):
    """Return a folder with a config.json for each kind of model."""
    made = {}
    for name, config in configs.items():
        made[name] = str(tmp_path_factory.mktemp(name))
        config.save_pretrained(made[name])
    return made


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_the_library_counts(folders, name):
    config = counting.read_config(folders[name])
    model = counting.make_model(config, folders[name])
    counted = counting.count(folders[name])
    assert counted["parameters"] == counted["trainable"] == model.num_parameters() == sum(counted["tensors"])
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_the_published_sizes_of_deepspeeds_estimates(transformers):
    """The two models of the tables in DeepSpeed's memory docs and in the HF docs: P and L in millions."""
    sizes = []
    for fields in (T5_3B, T0_3B):
        model = counting.make_model(transformers.T5Config(**fields), "")
        own = max(
            sum(weight.numel() for weight in part.parameters(recurse=False)) for part in model.modules()
        )
        sizes.append((model.num_parameters() // 10**6, own // 10**6))
    assert sizes == [(2851, 32), (2783, 65)]


def test_total_and_largest_layer_are_deepspeeds(transformers, configs, folders):
    """Its function sees tied weights by their address, which a meta tensor has not: small real models."""
    stage3 = pytest.importorskip("deepspeed.runtime.zero.stage3")
    for name in ("llama", "mixtral"):
        real = transformers.AutoModelForCausalLM.from_config(configs[name])
        counted = counting.count(folders[name])
        assert stage3.model_to_params(real) == (counted["parameters"], counted["largest_layer"])


def test_tied_weights_count_once(transformers, tmp_path):
    """GPT-2's output embedding is its input embedding; untied, the model has one more of that size."""
    counts = []
    for tied in (True, False):
        config = transformers.GPT2Config(n_layer=1, tie_word_embeddings=tied)
        config.save_pretrained(tmp_path)
        counts.append(counting.count(str(tmp_path))["parameters"])
    assert counts[1] - counts[0] == 50257 * 768


def test_the_shape_of_a_model(folders):
    told = {name: counting.count(folders[name]) for name in ("llama", "bart", "t5")}
    llama = told["llama"]
    assert (llama["hidden_size"], llama["layers"], llama["heads"]) == (64, 2, 4)
    assert (llama["vocabulary"], llama["max_positions"], llama["pretrained_in"]) == (100, 512, "bf16")
    assert (told["bart"]["layers"], told["t5"]["layers"]) == (24, 48)  # encoder and decoder
    assert (told["t5"]["max_positions"], told["t5"]["active_parameters"]) == (None, None)


def test_a_token_meets_two_of_mixtrals_eight_experts(folders):
    counted = counting.count(folders["mixtral"])
    expert = 3 * 64 * 128  # gate, up and down projection
    assert counted["parameters"] - counted["active_parameters"] == 2 * 6 * expert


@pytest.mark.filterwarnings("default")  # peft's
@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [  # as peft 0.21 counts: get_peft_model(model, LoraConfig(r=8, ...)).get_nb_trainable_parameters()
        ("t5", None, 5898240),
        ("t5", "all-linear", 25165824),
        ("llama", None, 4096),
        ("llama", "all-linear", 17408),
        ("gpt2", None, 294912),
        ("bart", None, 1179648),
        ("bart", "all-linear", 4325376),
    ],
)
def test_adapters_are_counted_as_peft_counts_them(folders, name, targets, expected):
    counted = counting.count(folders[name], {"r": 8, "target_modules": targets})
    assert counted["trainable"] == expected
    peft = pytest.importorskip("peft")
    model = counting.make_model(counting.read_config(folders[name]), folders[name])
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=targets))
    assert adapted.get_nb_trainable_parameters() == (expected, counted["parameters"])


def refusal(source, lora=None):
    with pytest.raises(counting.CannotCountError) as caught:
        counting.count(str(source), lora)
    return caught.value.problem


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('{"model_type": "yet-unheard-of"}', "does not know this kind of model"),
        ('{"hidden_size": 3}', "does not know this kind of model"),
        ("{", "not JSON"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', "code of its own"),
        ('{"model_type": "llama", "hidden_size": 10, "num_attention_heads": 3}', "attention heads"),
    ],
)
def test_what_cannot_be_counted_is_told_with_the_way_out(tmp_path, config, told):
    (tmp_path / "config.json").write_text(config)
    problem = refusal(tmp_path)
    assert told in problem["what"]
    assert problem["value"] == str(tmp_path)
    assert "model.parameters" in problem["fix"]


def test_a_folder_without_a_configuration_and_a_name_nobody_knows(tmp_path, monkeypatch):
    assert "no config.json" in refusal(tmp_path)["what"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "the hub cannot be reached" in refusal("nobody/no-such-model")["what"]


def test_targets_that_the_model_has_not(folders):
    problem = refusal(folders["llama"], {"r": 8, "target_modules": ["query"]})
    assert problem["where"] == "model.lora.target_modules"
    assert "q_proj" in problem["fix"]


def test_the_program_answers_on_stdout_alone(folders, tmp_path):
    program = str(ROOT / "orchestrator/huggingface/count.py")
    request = json.dumps({"config": folders["gpt2"], "lora": None})
    done = subprocess.run(
        [sys.executable, program, request],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, json.loads(done.stdout)["shape"]["parameters"]) == (0, 124439808)


def test_a_refusal_is_an_answer_on_stdout_too(tmp_path, capfd):
    code = counting.main(["count.py", json.dumps({"config": str(tmp_path), "lora": None})])
    os.write(1, b"what a library says")
    said = capfd.readouterr()
    assert (code, json.loads(said.out)["problem"]["where"]) == (1, "model.config")
    assert "library" in said.err
