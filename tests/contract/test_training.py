"""Real training: the example job, unchanged but for `cluster:`, on backends with a launcher each.

On simulated hosts tests/train/test_demo.py trains it, with torchrun.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.product import take_hosts, wait_until

if TYPE_CHECKING:
    from tests.contract.product import Run, Site

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/zeropp_lm/job.yaml"
LAUNCHERS = {"pdsh": "deepspeed", "ssh": "accelerate", "slurm": "torchrun"}
LOSS = re.compile(
    r"^step (\d+)/\d+ loss ([\d.]+) tokens/s \d+ step_time [\d.]+s TFLOP/s [\d.e-]+$", re.MULTILINE
)
FIRST = "{0.hosts[0]}.rank0.out"
SAVE_EVERY = 4

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def train(site: Site, steps: int, *words: str) -> Run:
    """Submit the example with its launcher for this backend."""
    args = ["--deepspeed_config", "{ds_config}", "--save", "{checkpoint_dir}", "--steps", str(steps), *words]
    settings = {
        "cluster": site.cluster(),
        "run_root": str(site.folder / "runs"),
        "train.args": args,
        "train.launcher": LAUNCHERS[site.backend],
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = site.orchestrate("submit", str(EXAMPLE), "--json", *given)
    assert done.returncode == 0, done.stderr
    return site.run_of(json.loads(done.stdout))


def see_zero_3_with_hpz_and_its_shards(run: Run) -> None:
    """See that the last attempt trained as the job file says, and saved a shard per rank."""
    last = len(list(run.path.glob("attempt-*")))
    assert "ZeRO stage 3, hpZ groups of 2" in run.log(FIRST.format(run.site), last)
    config = json.loads((run.path / f"attempt-{last}/rendered/ds_config.json").read_text())
    assert config["zero_optimization"]["zero_hpz_partition_size"] == 2
    tag = (run.path / "checkpoints/latest").read_text()
    shards = sorted((run.path / "checkpoints" / tag).glob("*_optim_states.pt"))
    assert len(shards) == 4
    run.see_nothing_left()


def losses(run: Run, attempt: int = 1) -> dict[int, float]:
    """Return the loss of every step that an attempt has told so far."""
    return {int(step): float(loss) for step, loss in LOSS.findall(run.log(FIRST.format(run.site), attempt))}


def stop_after_a_checkpoint(run: Run) -> None:
    """Stop the ranks once they have gone on from a checkpoint, or they end before Slurm takes their hosts.

    Slurm has what it ends go on (SIGCONT) before it sends SIGTERM.
    """
    latest = run.path / "checkpoints/latest"
    wait_until(lambda: latest.exists() and max(losses(run)) > SAVE_EVERY, run.story, within=600)
    for rank in run.events("rank_start"):
        os.kill(rank["pid"], signal.SIGSTOP)


def test_a_preempted_training_goes_on_with_the_loss_it_had(slurm: Site) -> None:
    run = train(slurm, 12, "--save_every", str(SAVE_EVERY))
    stop_after_a_checkpoint(run)
    take_hosts(slurm)
    verdict = run.wait(within=900)
    assert verdict["state"] == "SUCCEEDED", run.story()
    before, after = losses(run), losses(run, 2)
    assert "resumed " in run.log(FIRST.format(slurm), 2)
    assert 1 not in after
    assert list(after)[-1] == 12
    again = before.keys() & after.keys()  # what was done since the last checkpoint is done once more
    assert {step: before[step] for step in again} == {step: after[step] for step in again}
    assert after[12] < before[1] - 1.0
    see_zero_3_with_hpz_and_its_shards(run)


def test_the_example_trains_with_zero_3_and_hpz_and_saves_its_shards(remote: Site) -> None:
    """On Slurm the training above does."""
    run = train(remote, 6)
    verdict = run.wait(within=900)
    assert verdict["state"] == "SUCCEEDED", run.story()
    told = losses(run)
    assert list(told) == [1, 2, 3, 4, 5, 6]
    assert told[6] < told[1] - 1.0
    see_zero_3_with_hpz_and_its_shards(run)
