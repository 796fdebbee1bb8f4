"""examples/peft_lora_seq2seq: its job files submitted as they are, but for a smaller piece of work."""

from __future__ import annotations

import importlib
import json
import re
import sys

import pytest

from tests.train.hub import hub
from tests.train.submitted import EXAMPLES, orchestrate, submit

EXAMPLE = EXAMPLES / "peft_lora_seq2seq"
EVAL_ROWS = 30  # no multiple of 2 ranks x 8 rows: some are asked twice, and must not count twice
KINDS = (
    r"Memory before entering the {} ",
    r"Memory consumed at the end of the {} \(end-begin\)",
    r"Peak Memory consumed during the {} \(max-begin\)",
    r"Total Peak Memory consumed during the {} \(max\)",
)

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def rows():
    """The example's module of that name, which needs no torch."""
    sys.path.insert(0, str(EXAMPLE))
    yield importlib.import_module("rows")
    sys.path.remove(str(EXAMPLE))
    del sys.modules["rows"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of a model with weights, as one from the hub is, the tokenizer left to the script."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base")
    config = transformers.AutoConfig.from_pretrained(EXAMPLE / "models/tiny")
    transformers.set_seed(3)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server():
    with hub() as running:
        yield running


@pytest.fixture(scope="module")
def trained(base, server, tmp_path_factory):
    args = ["--output", "{run_dir}/output", "--model", base, "--target_modules", "all-linear", "--dropout", 0]
    args += [
        "--lr",
        0.004,
        "--source_length",
        40,
        "--epochs",
        2,
        "--train_rows",
        512,
        "--eval_rows",
        EVAL_ROWS,
        "--push_to_hub",
        "adapters-of-a-test",
    ]
    return submit(
        EXAMPLE / "job.yaml",
        tmp_path_factory.mktemp("trained"),
        train__args=[str(each) for each in args],
        train__env={"OMP_NUM_THREADS": "1", **server.environment},
        deepspeed__precision="fp32",  # so that one process can answer alike
    )


def predictions(run):
    return [json.loads(line) for line in (run.path / "output/predictions.jsonl").read_text().splitlines()]


def test_the_frozen_model_is_cut_up_and_offloaded(trained):
    zero = trained.config["zero_optimization"]
    assert (zero["stage"], zero["offload_param"]["device"], zero["offload_optimizer"]["device"]) == (
        3,
        "cpu",
        "cpu",
    )
    found = re.search(
        r"2 ranks on cpu, encoder-decoder of ([\d,]+) parameters, ([\d,]+) on each, ([\d,]+) train",
        trained.said,
    )
    total, held, trains = (int(number.replace(",", "")) for number in found.groups())
    assert trains == 45_056  # 8 x (128 + 128) for each of 12 layers of 128, 8 x (128 + 512) for each of 4
    assert held == pytest.approx(total / 2, rel=0.01)


def test_the_adapters_learn(trained):
    losses = [
        float(loss)
        for loss in re.findall(r"^epoch=\d: .*train_epoch_loss=(\S+)$", trained.said, re.MULTILINE)
    ]
    assert losses[1] < 0.5 * losses[0]
    accuracies = [float(each) for each in re.findall(r"accuracy=(\S+)", trained.said)]
    assert accuracies[-1] > 70  # half of the rows are comments


def test_every_row_is_answered_once_and_in_order(trained, rows):
    _, asked = rows.split_rows(None, ("text", "label"), (512, EVAL_ROWS), seed=42)
    answers = predictions(trained)
    assert [(each["text"], each["label"]) for each in answers] == [tuple(row) for row in asked]
    right = sum(each["answer"] == each["label"] for each in answers)
    assert f"epoch=1: accuracy={100 * right / EVAL_ROWS}\n" in trained.said
    assert f"eval_preds[:10]={[each['answer'] for each in answers[:10]]}\n" in trained.said


@pytest.mark.parametrize("phase", ["train", "eval"])
def test_memory_is_reported_as_the_guide_does(trained, phase):
    lines = [rf"^CPU {kind.format(phase)}: (-?\d+)$" for kind in KINDS]
    before, more, above, peak = (int(re.search(line, trained.said, re.MULTILINE)[1]) for line in lines)
    assert before > 50  # MiB: torch alone takes more
    assert peak == pytest.approx(before + above, abs=1)
    assert peak >= before + more - 1


def test_the_adapters_are_pushed_as_they_were_saved(trained, server):
    saved = {path.name: path.read_bytes() for path in (trained.path / "output/adapters").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(saved)
    assert server.files == {f"me/adapters-of-a-test/{name}": content for name, content in saved.items()}
    assert "/me/adapters-of-a-test/commit/1\n" in trained.said


@pytest.mark.filterwarnings("default")  # of peft and transformers
def test_the_saved_adapters_answer_the_same_in_one_process(trained, base):
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(base)
    model = peft.PeftModel.from_pretrained(model, trained.path / "output/adapters").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.path / "output/tokenizer")
    told = predictions(trained)
    for each in told:
        text = tokenizer(f"Text : {each['text']}", add_special_tokens=False)["input_ids"]
        question = tokenizer(" Label :")["input_ids"]
        ids = tokenizer.pad(
            {"input_ids": [text[: 40 - len(question)] + question]}, return_tensors="pt"
        )  # one row: nothing is padded
        written = model.generate(**ids, max_new_tokens=8, do_sample=False)
        assert tokenizer.decode(written[0], skip_special_tokens=True).strip() == each["answer"]


def test_a_decoder_alone_trains_with_the_same_script(tmp_path):
    run = submit(EXAMPLE / "job.causal.yaml", tmp_path)
    assert "2 ranks on cpu, decoder of " in run.said
    accuracies = [float(each) for each in re.findall(r"accuracy=(\S+)", run.said)]
    assert accuracies[-1] > 70
    assert (run.path / "output/adapters/adapter_model.safetensors").exists()


def test_the_job_for_gpus_runs_with_a_small_model(tmp_path, rows):
    data = tmp_path / "rows.csv"
    data.write_text("line,kind\n" + "".join(f"line {n},{'odd' if n % 2 else 'even'}\n" for n in range(24)))
    args = ["--output", "{run_dir}/output", "--model", "models/tiny", "--recompute", "--epochs", "1"]
    args += ["--data", str(data), "--text_column", "line", "--label_column", "kind", "--answer_length", "2"]
    run = submit(
        EXAMPLE / "job.gpu.yaml",
        tmp_path,
        train__args=args,
        deepspeed__param_persistence_threshold=1000,
        deepspeed__pin_memory=False,  # there is nothing to copy to
    )
    assert len(re.findall(r"^batch \d/2 loss ", run.said, re.MULTILINE)) == 2  # 20 rows, 2 ranks x 4 rows
    assert len(predictions(run)) == 4
    assert {each["label"] for each in predictions(run)} <= {"odd", "even"}
    torch = pytest.importorskip("safetensors.torch")
    saved = torch.load_file(run.path / "output/adapters/adapter_model.safetensors")
    ends = {name: weight.abs().max().item() for name, weight in saved.items() if "lora_B" in name}
    assert len(ends) == 6  # query and value of three attentions
    assert min(ends.values()) > 0  # they begin as zeros: recomputation let the gradient through everywhere


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLE.glob("job*.yaml")))
def test_the_job_files_are_right(name, tmp_path):
    done = orchestrate("submit", EXAMPLE / name, "--dry-run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_made_rows_are_halves_and_the_same_for_everybody(rows):
    train, evaluation = rows.split_rows(None, ("", ""), (200, 40), seed=1)
    assert (len(train), len(evaluation)) == (200, 40)
    assert not set(train) & set(evaluation)
    assert sum(row.label == "code" for row in train + evaluation) == 120
    assert rows.split_rows(None, ("", ""), (200, 40), seed=1) == (train, evaluation)
    assert rows.split_rows(None, ("", ""), (200, 40), seed=2) != (train, evaluation)


def test_lines_are_told_apart(rows, tmp_path):
    source = tmp_path / "some.py"
    source.write_text(
        '"""A docstring that is neither of the two."""\n'
        "# a comment that stands alone\n"
        "value = 'x' * 20  # a comment beside code\n"
        "for each in range(10):\n"
        "    print('a call that is long')\n"
    )
    assert [tuple(row) for row in rows.told_apart(source)] == [
        ("a comment that stands alone", "comment"),
        ("value = 'x' * 20  # a comment beside code", "code"),
        ("for each in range(10):", "code"),
        ("print('a call that is long')", "code"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "text,kind\nhello,x\n", ("a.csv, row 1: no column 'label'", "of: text, kind")),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text"\n', ("a.jsonl:2: not JSON",)),
        ("a.jsonl", "[1]\n", ("a.jsonl:1: '[1]' is no object",)),
        ("a.csv", "text,label\nalone,x\n", ("two rows are the least",)),
    ],
)
def test_wrong_data_is_told_by_its_place(rows, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(rows.DataError) as caught:
        rows.split_rows(str(tmp_path / name), ("text", "label"), (8, 8), seed=1)
    for each in words:
        assert each in str(caught.value)


def test_a_missing_file_is_told_in_the_verdict(tmp_path):
    args = ["--output", "{run_dir}/output", "--data", "nowhere.csv"]
    run = submit(EXAMPLE / "job.yaml", tmp_path, succeeds=False, train__args=args, cluster__slots=1)
    assert "--data nowhere.csv: no such file" in run.screen
