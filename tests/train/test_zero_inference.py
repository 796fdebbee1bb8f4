"""examples/zero_inference: both forms give the answers that a plain model gives, one prompt at a time."""

from __future__ import annotations

import importlib
import json
import re
import sys

import pytest

from tests.train.submitted import EXAMPLES, orchestrate, submit

EXAMPLE = EXAMPLES / "zero_inference"
PROMPTS = 11  # 2 ranks x 4 prompts: in the second round rank 0 has three and rank 1 none
LENGTH = 12

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def sharing():
    """The example's module of prompts, which needs no torch."""
    sys.path.insert(0, str(EXAMPLE))
    yield importlib.import_module("prompts")
    sys.path.remove(str(EXAMPLE))
    del sys.modules["prompts"]


@pytest.fixture(scope="module")
def prompts(sharing, tmp_path_factory):
    texts = sharing.read_prompts(EXAMPLE / "prompts.txt")[:PROMPTS]
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return path, texts


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models with weights: an encoder-decoder, and a decoder alone."""
    transformers = pytest.importorskip("transformers")
    encoder = transformers.AutoConfig.from_pretrained(EXAMPLE / "models/tiny")
    decoder = transformers.LlamaConfig(
        vocab_size=384,
        hidden_size=64,
        intermediate_size=96,
        initializer_range=0.2,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    folders = {}
    for name, config in (("encoder", encoder), ("decoder", decoder)):
        transformers.set_seed(5)
        kind = "AutoModelForSeq2SeqLM" if name == "encoder" else "AutoModelForCausalLM"
        folders[name] = tmp_path_factory.mktemp(name)
        getattr(transformers, kind).from_config(config).save_pretrained(folders[name])
    return folders


def ask_one_by_one(folder, texts):
    """Return what a plain model in one process answers: no batch, no padding, nothing cut up."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    name = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    model = getattr(transformers, name).from_pretrained(folder).eval()
    tokenizer = transformers.ByT5Tokenizer()
    answers = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        written = model.generate(ids, attention_mask=ids != 0, max_new_tokens=LENGTH, do_sample=False)[0]
        written = written if config.is_encoder_decoder else written[ids.shape[1] :]
        answers.append(tokenizer.decode(written, skip_special_tokens=True).strip())
    return answers


def arguments(model, prompts):
    return [
        *("--model", str(model), "--prompts", str(prompts), "--output", "{run_dir}/answers.jsonl"),
        *("--answer_length", str(LENGTH)),
    ]


def answers(run):
    with (run.path / "answers.jsonl").open() as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def asked(models, prompts, tmp_path_factory):
    return submit(
        EXAMPLE / "job.yaml",
        tmp_path_factory.mktemp("asked"),
        train__args=["--deepspeed_config", "{ds_config}", *arguments(models["encoder"], prompts[0])],
        deepspeed__precision="fp32",  # so that one process can answer alike
    )


def test_answers_are_those_of_a_whole_model_and_in_order(asked, models, prompts):
    texts = prompts[1]
    told = answers(asked)
    expected = ask_one_by_one(models["encoder"], texts)
    assert len(set(expected)) > PROMPTS // 2  # else a mix-up would not show
    assert [each["answer"] for each in told] == expected
    assert [each["prompt"] for each in told] == texts
    assert [each["number"] for each in told] == list(range(PROMPTS))


def test_each_rank_asks_its_own_prompts(asked):
    assert [each["rank"] for each in answers(asked)] == [0] * 4 + [1] * 4 + [0] * 3


def test_the_weights_are_cut_up_and_offloaded(asked):
    zero = asked.config["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"]) == (3, "cpu")
    found = re.search(
        r"^2 ranks on cpu, ([\d,]+) parameters, ([\d,]+) on each, 11 prompts$", asked.said, re.MULTILINE
    )
    total, held = (int(number.replace(",", "")) for number in found.groups())
    assert held == pytest.approx(total / 2, rel=0.01)


def test_accelerate_gives_the_same_answers(models, prompts, tmp_path):
    path, texts = prompts
    run = submit(
        EXAMPLE / "job.accelerate.yaml",
        tmp_path,
        train__args=arguments(models["decoder"], path),
        deepspeed__precision="fp32",
    )
    told = answers(run)
    expected = ask_one_by_one(models["decoder"], texts)
    assert len(set(expected)) > PROMPTS // 2
    assert [each["answer"] for each in told] == expected
    assert [each["prompt"] for each in told] == texts
    assert {each["rank"] for each in told} == {0, 1}


@pytest.mark.parametrize("config", [{}, {"zero_optimization": {"stage": 2}}])
def test_a_stage_that_cuts_up_no_weights_is_refused(sharing, config):
    sharing.check_stage({"zero_optimization": {"stage": 3}})
    with pytest.raises(SystemExit, match=r"zero_stage [02] cuts up no weights.*; set zero_stage: 3$"):
        sharing.check_stage(config)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLE.glob("job*.yaml")))
def test_the_job_files_are_right(name, tmp_path):
    done = orchestrate("submit", EXAMPLE / name, "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize(
    ("number", "size", "world"), [(1, 1, 1), (1, 4, 3), (11, 4, 2), (16, 4, 2), (7, 3, 5)]
)
def test_every_prompt_is_asked_once_and_every_rank_calls_as_often(sharing, number, size, world):
    each = [list(sharing.shares(number, size, rank, world)) for rank in range(world)]
    assert len({len(shares) for shares in each}) == 1
    assert all(1 <= len(share) <= size for shares in each for share in shares)
    asked = [n for shares in each for share in shares for n in share if n != sharing.NOTHING]
    assert sorted(asked) == list(range(number))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.txt", "\n \n", "there is no prompt in it"),
        ("p.jsonl", '{"question": "a"}\n', 'every line has to be {"prompt": "..."}'),
        ("p.jsonl", "plain\n", 'every line has to be {"prompt": "..."}'),
        ("p.txt", None, "No such file or directory; give a file with one prompt a line"),
    ],
)
def test_wrong_prompts_are_told(sharing, tmp_path, name, text, words):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        sharing.read_prompts(path)
    assert str(caught.value).startswith(f"--prompts {path}: ")
    assert words in str(caught.value)
