"""`orchestrate resume`: the run that goes on, on as many hosts as there are now."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.product import Run, wait_until
from tests.shards import save_tag

if TYPE_CHECKING:
    from tests.contract.product import Site

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/zeropp_lm/job.yaml"
SAVING_SCRIPT = Path(__file__).with_name("saving_script.py")
LOSS = re.compile(r"^step (\d+)/6 loss ([\d.]+) ", re.MULTILINE)
HELD_OUT = re.compile(r"^held-out loss ([\d.]+),", re.MULTILINE)
ZERO3 = {"zero_stage": 3, "micro_batch_per_gpu": 1, "gradient_accumulation_steps": 1}
CONVERT = """
mkdir -p "$2/zero/weight" && cp *model_states.pt "$2"
for state in optimizer_state weight/fp32 weight/exp_avg weight/exp_avg_sq; do
    cp *rank_0_*optim_states.pt "$2/zero/$state.pt"
done
echo '{"deepspeed": "0.19.8", "notes": []}'
"""


def python_that(site: Site, converts: str) -> str:
    """Return a Python that does `converts` where it is to convert a tag ($1) into a folder ($2)."""
    path = site.folder / "python"
    path.write_text(
        f'#!/bin/bash\nif [ "$2" != converter ]; then exec {sys.executable} "$@"; fi\n'
        f'shift 2; cd "$1" || exit 9\n{converts}\n'
    )
    path.chmod(0o755)
    return str(path)


def resume(site: Site, run: Run, *words: str) -> Run:
    done = site.orchestrate("resume", str(run.path), "--json", *words)
    assert done.returncode == 0, done.stderr
    return site.run_of(json.loads(done.stdout), run.report_folder.name)


def test_on_slurm_the_job_itself_makes_the_checkpoint_fit_fewer_hosts(slurm: Site) -> None:
    train = {
        "script": str(SAVING_SCRIPT),
        "python": python_that(slurm, CONVERT),
        "args": ["--at-start"],
        "checkpoint_dir": "{run_dir}/saved",
        "resume_args": ["--resume", "{resume_tag}"],
    }
    run = slurm.submit("first", train=train, deepspeed=ZERO3)
    assert run.wait()["state"] == "SUCCEEDED", run.story()
    words = ("--nodes", "1", "--set", "train.args=[]")
    refused = slurm.orchestrate("resume", str(run.path), "--nodes", "3", "--set", "train.args=[]")
    assert (refused.returncode, "cannot be kept by 6 ranks" in refused.stderr) == (2, True)
    again = resume(slurm, run, *words)
    assert again.wait()["state"] == "SUCCEEDED", again.story()
    (event,) = again.events("reshaped")
    assert (event["tag"], event["ranks"], event["universal"]) == ("global_step1", 4, "global_step1_universal")
    (out,) = (again.path / "attempt-1/logs").glob("*.rank0.out")  # either host may be free first
    assert "attempt 1 resume global_step1_universal" in out.read_text()
    config = json.loads((again.path / "attempt-1/rendered/ds_config.json").read_text())
    assert config["checkpoint"] == {"load_universal": True}
    assert (config["train_batch_size"], config["gradient_accumulation_steps"]) == (4, 2)
    again.see_nothing_left()


def test_a_cancel_ends_a_conversion_that_goes_on(local: Site) -> None:
    folder = local.folder / "saved"
    save_tag(folder, "global_step1")
    train = {
        "python": python_that(local, f"touch {local.folder}/on; mkdir $2; sleep 300"),
        "checkpoint_dir": str(folder),
        "resume": "always",
    }
    run = local.submit(cluster={"nodes": 1}, train=train, deepspeed=ZERO3)
    wait_until((local.folder / "on").exists, run.story)
    status = run.status()
    assert (status["state"], status["reason"]) == ("STARTING", "converting global_step1, of 4 ranks, for 2")
    done = local.orchestrate("cancel", run.run_id)
    assert done.returncode == 0, done.stderr
    assert run.wait()["state"] == "CANCELLED"
    assert {path.name for path in folder.iterdir()} == {"latest", "global_step1"}
    run.see_nothing_left()


def test_a_checkpoint_that_cannot_be_made_fit_fails_the_run_and_says_why(local: Site) -> None:
    save_tag(local.folder / "saved", "global_step1")
    says = 'echo \'{"problem": {"what": "no Adam", "fix": "take 4 ranks"}}\'; exit 1'
    train = {
        "python": python_that(local, says),
        "checkpoint_dir": str(local.folder / "saved"),
        "resume": "always",
    }
    run = local.submit(cluster={"nodes": 1}, train=train, deepspeed=ZERO3)
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    assert "cannot go on from its checkpoint" in verdict["summary"]
    assert "no Adam" in verdict["summary"]


@pytest.mark.train
@pytest.mark.xdist_group("train")
def test_the_loss_of_four_ranks_goes_on_with_two(local: Site) -> None:
    """The example: six steps on two hosts, and again from the third on one of them: one curve."""
    args = ["--deepspeed_config", "{ds_config}", "--save", "{checkpoint_dir}", "--save_every", "3"]
    settings = {
        "cluster": local.cluster(),
        "run_root": str(local.folder / "runs"),
        "deepspeed.micro_batch_per_gpu": 6,  # does not divide what is held out: no window may count twice
        "train.args": [*args, "--steps", "6", "--seq_len", "32"],
        "train.checkpoint_dir": "{run_dir}/saved",
        "train.resume_args": ["--resume", "{resume_tag}"],
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = local.orchestrate("submit", str(EXAMPLE), "--json", *words)
    assert done.returncode == 0, done.stderr
    run = local.run_of(json.loads(done.stdout))
    assert run.wait(within=900)["state"] == "SUCCEEDED", run.story()
    again = resume(local, run, "--nodes", "1", "--tag", "global_step3", "--set", "deepspeed.hpz=1")
    assert again.wait(within=900)["state"] == "SUCCEEDED", again.story()
    whole, rest = (
        {int(step): float(loss) for step, loss in LOSS.findall(one.log("host-0.rank0.out"))}
        for one in (run, again)
    )
    assert list(whole) == [1, 2, 3, 4, 5, 6]
    assert rest == {step: pytest.approx(whole[step], abs=1e-3) for step in (4, 5, 6)}
    ends = [float(HELD_OUT.search(one.log("host-0.rank0.out"))[1]) for one in (run, again)]
    assert ends[1] == pytest.approx(ends[0], abs=2e-3)
    assert "ZeRO stage 3, hpZ groups of 1" in again.log("host-0.rank0.out")
    listed = local.orchestrate("checkpoint", "list", str(again.path), "--json")
    tags = {tag["name"]: (tag["complete"], tag["world_size"]) for tag in json.loads(listed.stdout)["tags"]}
    assert tags == {
        "global_step3": (True, 4),
        "global_step3_universal": (True, 4),
        "global_step6_of_4_ranks": (True, 4),  # what the longer run saved last: not mixed with the new one
        "global_step6": (True, 2),
    }
