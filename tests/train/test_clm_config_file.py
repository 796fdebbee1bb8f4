"""examples/clm_config_file, submitted as a user does: each DeepSpeed file, a resumed run, wrong words."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

import pytest

from orchestrator.checkpoints import Kind, last_complete
from tests.train.submitted import orchestrate, submit

if TYPE_CHECKING:
    from tests.train.submitted import Submitted

EXAMPLE = Path(__file__).parents[2] / "examples" / "clm_config_file"
STEP = re.compile(r"^step (\d+)/\d+ loss (\d+\.\d{3}) lr (\S+) step_time", re.MULTILINE)
EVAL = re.compile(r"^eval step_(\d+) loss (\d+\.\d{3}) perplexity (\d+\.\d\d)( best)?$", re.MULTILINE)

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def start(job: str, folder: Path, words: list[object], **settings: object) -> Submitted:
    """Run a job file of the example on one host of two ranks."""
    given = {"cluster__nodes": 1, "cluster__slots": 2, "train__args": [str(word) for word in words]}
    return submit(EXAMPLE / job, folder, **given, **settings)


def args(steps: int, *more: object) -> list[object]:
    few = ["--seq_len", 64, "--steps", steps, "--eval_every", 3, "--warmup_steps", 2]
    return ["--output_dir", "{run_dir}/output", "--checkpoint_dir", "{checkpoint_dir}", *few, *more]


def losses(run: Submitted) -> dict[int, float]:
    return {int(step): float(loss) for step, loss, _ in STEP.findall(run.said)}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """Some of the text that the script trains on when it is told no other: evaluating on all takes longer."""
    path = tmp_path_factory.mktemp("text") / "reference.txt"
    path.write_text("\n\n".join(words for _, words in sorted(topics.items()))[:60_000])
    return path


@pytest.fixture(scope="module")
def zero2(tmp_path_factory) -> Submitted:
    return start("job.yaml", tmp_path_factory.mktemp("runs"), args(6, "--report_to", "jsonl", "csv"))


@pytest.fixture(scope="module")
def offloaded(text, tmp_path_factory) -> Submitted:
    runs = tmp_path_factory.mktemp("runs")
    return start("job.zero3_offload.yaml", runs, args(6, "--data", text))


def test_deepspeed_makes_the_optimizer_and_the_scheduler_that_its_file_names(zero2):
    assert (
        "2 ranks on cpu, ZeRO stage 2, offload none, optimizer of DeepSpeed, scheduler of DeepSpeed"
        in zero2.said
    )
    rates = [float(rate) for _, _, rate in STEP.findall(zero2.said)]
    # WarmupDecayLR over the steps that the script asked for, not over those times the number of ranks
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 1
    assert rates[-1] == pytest.approx(max(rates) / 4, rel=0.01)


def test_both_ranks_train_on_blocks_of_their_own_and_the_loss_falls(zero2):
    assert "batch 32" in zero2.said  # 8 blocks x 2 accumulated x 2 ranks
    seen = losses(zero2)
    assert list(seen) == [1, 2, 3, 4, 5, 6]
    assert 5 < seen[1] < 6.2  # about ln(256): nothing is known about the bytes yet
    assert seen[6] < seen[1] - 0.5


def test_perplexity_is_that_of_the_evaluation_and_the_best_is_named(zero2):
    found = EVAL.findall(zero2.said)
    assert [step for step, *_ in found] == ["3", "6"]
    for _, loss, perplexity, _ in found:
        assert math.exp(float(loss)) == pytest.approx(float(perplexity), rel=0.001)
    best = min(found, key=lambda one: float(one[1]))
    named = json.loads((zero2.path / "output/best.json").read_text())
    assert named["tag"] == f"step_{best[0]}"
    assert named["perplexity"] == pytest.approx(float(best[2]), abs=0.01)


def test_trackers_write_what_was_printed(zero2):
    lines = [json.loads(line) for line in (zero2.path / "output/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["arguments"]["seq_len"] == "64"
    told = {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}
    assert told == pytest.approx(losses(zero2), abs=0.001)
    with (zero2.path / "output/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {int(row["step"]): float(row["value"]) for row in rows if row["name"] == "train/loss"} == told


def test_every_rank_saves_and_the_product_finds_the_checkpoint(zero2, offloaded):
    for run in (zero2, offloaded):
        tag = last_complete(run.path / "output/checkpoints")
        assert (tag.kind, tag.path.name, tag.complete, tag.step) == (Kind.ACCELERATE, "step_6", True, 6)
        states = sorted(path.name for path in tag.path.glob("random_states_*"))
        assert states == ["random_states_0.pkl", "random_states_1.pkl"]
        assert json.loads((tag.path / "metrics.json").read_text())["step"] == 6
        assert json.loads((tag.path.parent / "config.json").read_text())["n_embd"] == 128


def test_weights_gathered_at_stage_3_load_whole_and_have_the_loss_that_was_told(offloaded, text):
    assert "ZeRO stage 3, offload cpu, optimizer of DeepSpeed" in offloaded.said
    told = json.loads((offloaded.path / "output/best.json").read_text())["loss"]
    program = (
        "import sys, torch; from corpus import blocks; from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()\n"
        "ids = blocks(sys.argv[2], None, 64, 'bytes')[1].long()\n"
        "with torch.no_grad(): print(model(input_ids=ids, labels=ids).loss.item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(offloaded.path / "output/best_model"), str(text)],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(told, rel=0.01)  # they were trained and saved in 16 bits


def test_a_resumed_run_goes_on_as_if_never_interrupted(offloaded, text, tmp_path):
    kept = tmp_path / "kept" / "checkpoints"
    shutil.copytree(offloaded.path / "output/checkpoints/step_3", kept / "step_3")
    run = start(
        "job.zero3_offload.yaml",
        tmp_path,
        args(6, "--data", text),
        train__checkpoint_dir=str(kept),
        train__resume="always",
    )
    assert "resumed step_3 at step 3" in run.said
    assert (kept / "step_6" / "metrics.json").is_file()  # and not in the new run's folder
    whole = losses(offloaded)
    assert losses(run) == pytest.approx({step: whole[step] for step in (4, 5, 6)}, abs=0.002)


def test_without_them_in_the_file_the_script_brings_its_own(text, tmp_path):
    run = start(
        "job.yaml",
        tmp_path,
        args(3, "--data", text),
        deepspeed__config_file=str(EXAMPLE / "ds_config.own_optimizer.json"),
    )
    assert "optimizer of the script, scheduler of the script" in run.said
    assert not {"optimizer", "scheduler"} & run.config.keys()
    rates = [float(rate) for _, _, rate in STEP.findall(run.said)]
    assert rates == pytest.approx(
        [5e-4, 1e-3, 0], abs=1e-9
    )  # up in two steps, and down a cosine by the third


BESIDE = """
import json, sys
from types import SimpleNamespace as Given
import torch
from corpus import blocks
from parts import build_model, by_config
from tracking import trackers
from train import join

def count(*sources):
    return [len(part) for part in blocks(*sources, 4, "bytes")]

def choose(*names):
    plugin = Given(deepspeed_plugin=Given(deepspeed_config=dict.fromkeys(names)))
    asked = Given(weight_decay=0.1, lr=0.5, steps=10, warmup_steps=3)
    made = by_config(Given(state=plugin, num_processes=2), torch.nn.LayerNorm(4), asked)
    return [type(one).__name__ for one in made]

def build(name):
    build_model(Given(model=name, seq_len=8), 256)

for call in json.loads(sys.argv[1]):
    try:
        print(json.dumps([eval(call), ""]))
    except SystemExit as end:
        print(json.dumps([None, end.code]))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    texts = {
        "a.txt": "0123456789" * 8,
        "few.txt": "0123" * 3,
        "a.jsonl": json.dumps({"text": "0123456789" * 4})
        + "\n"
        + json.dumps({"text": "01234567\n" * 4})
        + "\n",
        "a.csv": 'number,text\n1,"0123456789\n01234567890"\n2,' + "0123456789" * 6,
        "short.txt": "abc",
        "words.jsonl": '{"words": "abc"}\n',
        "broken.jsonl": '{"text": "abc"}\n{"text": ',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


CALLS = {  # what is called: what it returns, or the words that it ends with
    "count('a.txt', None)": [18, 2],
    "count('a.txt', 'few.txt')": [20, 3],
    "count('a.jsonl', None)": [17, 2],
    "count('a.csv', None)": [18, 2],
    "count('short.txt', None)": "the training text has not one block of 4 tokens: short.txt",
    "count('words.jsonl', None)": "no column `text`: words.jsonl, row 1",
    "count('broken.jsonl', None)": "broken.jsonl, line 2",
    "choose()": ["AdamW", "LambdaLR"],
    "choose('scheduler')": ["AdamW", "DummyScheduler"],
    "choose('optimizer', 'scheduler')": ["DummyOptim", "DummyScheduler"],
    "choose('optimizer')": "takes no scheduler of ours beside DeepSpeed's optimizer",
    "trackers(['jsonl', 'nonesuch'], None)": "no such tracker on this host (--report_to): nonesuch",
    "build('nowhere')": "no model (",
    "join(None)": "use launcher: accelerate",  # started without DeepSpeed
}


@pytest.fixture(scope="module")
def answers(files) -> dict[str, tuple[object, str]]:
    """What the script's parts return or end with, all in one process: torch takes seconds to start."""
    done = subprocess.run(
        [sys.executable, "-c", BESIDE, json.dumps(list(CALLS))],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE), "HF_HUB_OFFLINE": "1"},
        cwd=files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CALLS, map(json.loads, done.stdout.splitlines()[-len(CALLS) :]), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_the_parts_do_what_they_are_asked_or_say_how_to_ask(answers, call):
    returned, ended = answers[call]
    if isinstance(CALLS[call], str):
        assert CALLS[call] in ended
        assert "fix: " in ended
    else:
        assert (returned, ended) == (CALLS[call], "")


def test_deepspeeds_optimizer_without_its_scheduler_is_refused_at_submit(tmp_path):
    config = json.loads((EXAMPLE / "ds_config.zero2.json").read_text())
    del config["scheduler"]
    (tmp_path / "ds_config.json").write_text(json.dumps(config))
    words = [
        "--set",
        f"deepspeed.config_file={tmp_path / 'ds_config.json'}",
        "--set",
        f"run_root={tmp_path / 'runs'}",
    ]
    done = orchestrate("submit", EXAMPLE / "job.yaml", *words, folder=tmp_path)
    assert done.returncode == 2
    assert "Accelerate refuses a scheduler that the script brings" in done.stderr
    assert not (tmp_path / "runs").exists()
