"""The script of examples/zeropp_lm, run for real with what its own job files ask for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from orchestrator.configs.deepspeed_config import build
from orchestrator.hosts.pool import resolve_pool
from orchestrator.job import load_job
from tests.train.ranks import run_ranks

EXAMPLE = Path(__file__).parents[2] / "examples" / "zeropp_lm"
JOBS = sorted(EXAMPLE.glob("job*.yaml"))
FIGURES = r"loss (\d+\.\d{3}) tokens/s \d+ step_time \d+\.\d\ds TFLOP/s [\d.e-]+(?: MFU \d+\.\d%)?"
STEP = re.compile(rf"^step (\d+)/\d+ {FIGURES}$", re.MULTILINE)
RANKS = 2

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("zeropp_lm")


def start(folder: Path, job: str, *args: object, ranks: int = RANKS, change: tuple[str, ...] = ()) -> str:
    """Train on one host of CPU ranks, with the DeepSpeed JSON of a job file; return what rank 0 said."""
    settings = ["cluster.nodes=1", f"cluster.slots={ranks}", *change]
    loaded = load_job(EXAMPLE / job, overrides=settings)
    config = folder / "ds_config.json"
    made = build(loaded.spec.deepspeed, resolve_pool(loaded.spec.cluster), loaded.base_dir).config
    config.write_text(json.dumps(made))
    words = ["--deepspeed_config", config, "--shards", folder / "shards", *args]
    return run_ranks(ranks, EXAMPLE / "train.py", *words, cwd=EXAMPLE)


def run(words: list[object]) -> subprocess.CompletedProcess[str]:
    # No GPU, so that the figures are the same everywhere; one thread a rank, as the tests share their cores.
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
        [str(word) for word in words], env=env, cwd=EXAMPLE, capture_output=True, text=True, timeout=600
    )


def losses(output: str) -> dict[int, float]:
    """Return the loss after each step that the output reports."""
    return {int(step): float(loss) for step, loss in STEP.findall(output)}


def held_out(output: str) -> float:
    (loss,) = re.findall(r"^held-out loss (\d+\.\d{3}), \d+\.\d{3} bits per byte$", output, re.MULTILINE)
    return float(loss)


@pytest.fixture(scope="module")
def saved(folder) -> Path:
    return folder / "saved"


@pytest.fixture(scope="module")
def whole(folder, saved) -> str:
    """What an uninterrupted run of eight steps says, which saves after four of them and at its end."""
    return start(
        folder, "job.yaml", "--seq_len", 32, "--steps", 8, "--save", saved, "--save_every", 4, "--resume"
    )


def test_every_step_is_reported_and_the_loss_falls(whole):
    seen = losses(whole)
    assert list(seen) == list(range(1, 9))
    assert 5 < seen[1] < 6.5  # about ln(256): nothing is known about the bytes yet
    assert seen[8] < seen[1] - 1
    assert held_out(whole) < seen[1] - 1


def test_the_script_trains_what_the_job_file_asks_for(whole):
    assert f"{RANKS} ranks on cpu, ZeRO stage 3, hpZ groups of {RANKS}, 0.7 M parameters" in whole


def test_a_first_start_that_may_resume_starts_from_nothing(whole, saved):
    assert f"no checkpoint in {saved}: starting from step 0" in whole


def test_the_checkpoint_has_a_shard_per_rank_and_the_model_beside_it(whole, saved):
    names = {path.name for path in (saved / "global_step4").iterdir()}
    for kind in (
        "zero_pp_rank_{}_mp_rank_00_model_states.pt",
        "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt",
    ):
        assert {kind.format(rank) for rank in range(RANKS)} <= names
    assert json.loads((saved / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_a_resumed_run_goes_on_as_if_never_interrupted(whole, folder, saved):
    args = ("--seq_len", 32, "--steps", 8, "--save", saved, "--resume", "global_step4")
    output = start(folder, "job.yaml", *args)
    assert "at step 4" in output
    assert losses(output) == pytest.approx({step: losses(whole)[step] for step in range(5, 9)}, abs=1.5e-3)
    assert held_out(output) == pytest.approx(held_out(whole), abs=1.5e-3)


def test_one_rank_resumes_from_what_two_have_saved_and_sees_the_same_data(whole, folder, saved):
    convert = Path(sysconfig.get_path("purelib"), "deepspeed/checkpoint/ds_to_universal.py")
    words = ["--input_folder", saved / "global_step4", "--output_folder", saved / "global_step4_universal"]
    run_ranks(1, convert, *words)
    settings = {"hpz": 1, "micro_batch_per_gpu": 16, "checkpoint.load_universal": "true"}
    change = tuple(f"deepspeed.{key}={value}" for key, value in settings.items())
    args = ("--seq_len", 32, "--steps", 6, "--save", saved, "--resume")
    output = start(folder, "job.yaml", *args, ranks=1, change=change)
    assert "global_step4_universal" in output
    assert losses(output) == pytest.approx({step: losses(whole)[step] for step in (5, 6)}, abs=1.5e-3)


def test_zero_2_recomputes_and_accumulates_to_the_same_losses(whole, folder):
    output = start(folder, "job.zero2.yaml", "--seq_len", 32, "--steps", 3, "--recompute")
    assert "ZeRO stage 2" in output
    assert losses(output) == pytest.approx({step: losses(whole)[step] for step in (1, 2, 3)}, abs=1e-2)


def test_zero_1_learns_pieces_of_words_from_a_folder_of_text(folder):
    text = folder / "text"
    (text / "below").mkdir(parents=True)
    for number, line in enumerate(("The quick brown fox jumps over the lazy dog.\n", "Lorem ipsum dolor.\n")):
        (text / "below" / f"{number}.txt").write_text(line * 500)
    args = ("--data", text, "--tokens", "bpe", "--vocabulary", 300, "--seq_len", 16, "--steps", 3)
    output = start(folder, "job.zero1.yaml", *args, "--peak_tflops", 0.1)
    assert "ZeRO stage 1" in output
    assert 5 < losses(output)[1] < 6.5  # about ln(300)
    assert losses(output)[3] < losses(output)[1]
    assert re.search(r" MFU \d+\.\d%$", output, re.MULTILINE)
    (learned,) = (folder / "shards").glob("*/tokenizer.json")
    assert "\u0120quick" in json.loads(learned.read_text())["model"]["vocab"]  # Ġ is BPE's space


PARSE = """
import json, sys
import train
for words in json.loads(sys.argv[1]):
    sys.argv = ["train.py", *words]
    print(json.dumps({key: str(value) for key, value in vars(train.parse_args()).items()}))
"""


def test_the_script_takes_the_arguments_of_every_job_file():
    jobs = [load_job(path).spec.train for path in JOBS]
    words = [[str(word) for word in (*job.args, *job.resume_args)] for job in jobs]
    done = run([sys.executable, "-c", PARSE, json.dumps(words)])
    assert done.returncode == 0, done.stderr
    parsed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {args["deepspeed_config"] for args in parsed} == {"{ds_config}"}
    sizes = dict(zip((path.name for path in JOBS), (args["size"] for args in parsed), strict=True))
    assert sizes["job.slurm.yaml"] == "7b"
    assert sizes["job.yaml"] == "tiny"
