"""Real training: the example job, unchanged but for `cluster:`, on every backend with a launcher each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.product import take_hosts, wait_until

if TYPE_CHECKING:
    from tests.contract.product import Site

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/zeropp_lm/job.yaml"
LAUNCHERS = {"local": "accelerate", "pdsh": "deepspeed", "ssh": "torchrun", "slurm": "torchrun"}
STEP = re.compile(r"^step (\d+)/12 loss ([\d.]+) ", re.MULTILINE)
LOSS = re.compile(
    r"^step (\d+)/6 loss ([\d.]+) tokens/s \d+ step_time [\d.]+s TFLOP/s [\d.e-]+$", re.MULTILINE
)

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def test_a_preempted_training_goes_on_with_the_loss_it_had(slurm: Site) -> None:
    args = [
        "--deepspeed_config",
        "{ds_config}",
        "--save",
        "{checkpoint_dir}",
        "--save_every",
        "2",
        "--steps",
        "12",
    ]
    settings = {
        "cluster": slurm.cluster(),
        "run_root": str(slurm.folder / "runs"),
        "train.args": args,
        "train.checkpoint_dir": "{run_dir}/saved",
        "train.resume_args": ["--resume", "{resume_tag}"],
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = slurm.orchestrate("submit", str(EXAMPLE), "--json", *words)
    assert done.returncode == 0, done.stderr
    run = slurm.run_of(json.loads(done.stdout))
    wait_until((run.path / "saved/latest").exists, run.story, within=120)
    take_hosts(slurm)
    verdict = run.wait(within=240)
    assert verdict["state"] == "SUCCEEDED", run.story()
    before, after = (dict(STEP.findall(run.log(f"{slurm.hosts[0]}.rank0.out", n))) for n in (1, 2))
    assert "resumed " in run.log(f"{slurm.hosts[0]}.rank0.out", 2)
    assert "1" not in after
    assert list(after)[-1] == "12"
    again = before.keys() & after.keys()  # what was done since the last checkpoint is done once more
    assert {step: before[step] for step in again} == {step: after[step] for step in again}
    run.see_nothing_left()


def test_the_example_trains_with_zero_3_and_hpz_and_saves_its_shards(site: Site) -> None:
    args = ["--deepspeed_config", "{ds_config}", "--save", "{run_dir}/checkpoints", "--steps", "6"]
    settings = {
        "cluster": site.cluster(),
        "run_root": str(site.folder / "runs"),
        "train.args": args,
        "train.launcher": LAUNCHERS[site.backend],
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = site.orchestrate("submit", str(EXAMPLE), "--json", *words)
    assert done.returncode == 0, done.stderr
    run = site.run_of(json.loads(done.stdout))
    verdict = run.wait(within=180)
    assert verdict["state"] == "SUCCEEDED", run.story()
    told = run.log(f"{site.hosts[0]}.rank0.out")
    losses = [float(loss) for _, loss in LOSS.findall(told)]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 1.0
    assert "ZeRO stage 3, hpZ groups of 2" in told
    config = json.loads((run.path / "attempt-1/rendered/ds_config.json").read_text())
    assert config["zero_optimization"]["zero_hpz_partition_size"] == 2
    tag = (run.path / "checkpoints/latest").read_text()
    shards = sorted((run.path / "checkpoints" / tag).glob("*_optim_states.pt"))
    assert len(shards) == 4
    run.see_nothing_left()
