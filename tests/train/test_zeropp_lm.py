"""The example's training script, run for real by plain torchrun: three starts of torch in all."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.configs.deepspeed_config import build
from orchestrator.hosts.pool import resolve_pool
from orchestrator.job import load_job

EXAMPLE = Path(__file__).parents[2] / "examples" / "zeropp_lm"
STEP = re.compile(r"^step (\d+)/(\d+) loss (\d+\.\d{3}) tokens/s (\d+) step_time (\d+\.\d\d)s$", re.MULTILINE)
RANKS = 2

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """The DeepSpeed JSON of the example's own job file, for one host of two ranks."""
    job = load_job(EXAMPLE / "job.yaml", overrides=["cluster.nodes=1", f"cluster.slots={RANKS}"])
    path = tmp_path_factory.mktemp("config") / "ds_config.json"
    path.write_text(
        json.dumps(build(job.spec.deepspeed, resolve_pool(job.spec.cluster), job.base_dir).config)
    )
    return path


def start(config: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the script on two CPU ranks; `--standalone` finds a free port."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", RANKS]
    script = [EXAMPLE / "train.py", "--deepspeed_config", config, "--seq_len", 32, *args]
    # No GPU, so that the figures are the same everywhere; one thread a rank, as the tests share their cores.
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    return subprocess.run(  # noqa: PLW1510 - the tests look at the exit code
        [str(word) for word in launcher + script], env=env, capture_output=True, text=True, timeout=120
    )


def losses(output: str) -> dict[int, float]:
    """Return the loss after each step that the output reports."""
    return {int(step): float(loss) for step, _, loss, *_ in STEP.findall(output)}


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> tuple[str, Path]:
    """Output and checkpoint folder of an uninterrupted run of eight steps."""
    save = tmp_path_factory.mktemp("whole")
    run = start(config, "--steps", 8, "--save", save)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout, save


def test_every_step_is_reported_and_the_loss_falls(whole):
    output, _ = whole
    seen = losses(output)
    assert list(seen) == list(range(1, 9))
    assert 5 < seen[1] < 6.5  # about ln(256): nothing is known about the bytes yet
    assert seen[8] < seen[1] - 1
    held_out = re.search(r"^held-out loss (\d+\.\d{3})$", output, re.MULTILINE)
    assert held_out
    assert float(held_out[1]) < seen[1] - 1


def test_the_script_trains_what_the_job_file_asks_for(whole):
    output, _ = whole
    assert f"{RANKS} ranks on cpu, ZeRO stage 3, hpZ groups of {RANKS}, " in output


def test_the_checkpoint_has_a_shard_per_rank(whole):
    _, save = whole
    tag = (save / "latest").read_text()
    names = {path.name for path in (save / tag).iterdir()}
    for kind in (
        "zero_pp_rank_{}_mp_rank_00_model_states.pt",
        "bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt",
    ):
        assert {kind.format(rank) for rank in range(RANKS)} <= names


def test_a_resumed_run_goes_on_as_if_never_interrupted(whole, config, tmp_path):
    output, _ = whole
    first = start(config, "--steps", 4, "--save", tmp_path, "--resume")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"no checkpoint in {tmp_path}: starting from step 0" in first.stdout
    second = start(config, "--steps", 8, "--save", tmp_path, "--resume")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "at step 4" in second.stdout
    assert list(losses(second.stdout)) == [5, 6, 7, 8]
    together = losses(first.stdout) | losses(second.stdout)
    assert together == pytest.approx(losses(output), abs=0.02)
