"""`orchestrate resume` and `checkpoint reshape`: what they make of a run that has ended, what they refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from orchestrator import registry
from orchestrator.checkpoints.owner import note_before
from orchestrator.errors import CheckpointError, OrchestratorError
from orchestrator.rundir import RunDir
from orchestrator.states import State
from orchestrator.supervisor.beginning import place_attempt, tag_to_resume
from orchestrator.supervisor.run import Supervisor
from orchestrator.supervisor.scheduler import FixedHosts
from tests.samples import click, supervisor_record
from tests.shards import save_tag, save_universal

JOB = {
    "name": "tiny",
    "cluster": {"backend": "local", "nodes": 2, "slots": 2},
    "train": {
        "script": "train.py",
        "checkpoint_dir": "{run_dir}/saved",
        "resume_args": ["--resume", "{resume_tag}"],
    },
    "deepspeed": {"zero_stage": 3, "micro_batch_per_gpu": 4, "gradient_accumulation_steps": 2},
}


def submit(here: Path, **changes) -> RunDir:
    """Write the directory of a run that has ended well."""
    (here / "job.yaml").write_text(yaml.safe_dump(JOB | changes))
    done = click("submit", "job.yaml", "--no-start", "--json")
    assert done.exception is None, done.exception
    run = RunDir(Path(json.loads(done.stdout)["run_dir"]))
    run.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": 1.0})
    return run


@pytest.fixture
def ended(here) -> RunDir:
    """A run of four ranks, with a checkpoint of step 4."""
    run = submit(here)
    save_tag(run.path / "saved")
    return run


def resume(run: RunDir, *words: str) -> RunDir:
    done = click("resume", run.run_id, "--no-start", "--json", *words)
    assert done.exception is None, done.exception
    return RunDir(Path(json.loads(done.stdout[done.stdout.index("{") :])["run_dir"]))


def refusal(*words: str) -> str:
    done = click(*words)
    assert isinstance(done.exception, OrchestratorError), done.output
    return str(done.exception)


def test_a_run_goes_on_in_a_new_one_with_the_same_checkpoints(ended):
    new = resume(ended)
    plan = new.plan()
    assert new.path != ended.path
    assert plan.checkpoint_dir == str(ended.path / "saved")
    assert plan.resume_tag == "global_step4"
    assert plan.command(1)[-2:] == ["--resume", "global_step4"]
    assert (new.record()["resumes"], new.record()["job_file"]) == (ended.run_id, ended.record()["job_file"])
    assert plan.deepspeed == ended.plan().deepspeed
    assert "resumes    " + ended.run_id in click("status", new.run_id).stdout
    again = submit_verdict(new)
    assert resume(again).plan().checkpoint_dir == str(ended.path / "saved")


def submit_verdict(run: RunDir) -> RunDir:
    run.write_verdict({"state": "FAILED", "summary": "", "ended": 1.0})
    return run


def test_on_other_hosts_it_says_what_it_makes_first_and_keeps_the_batch(ended):
    done = click("resume", ended.run_id, "--nodes", "1", "--dry-run")
    assert done.exception is None, done.exception
    assert f"resumes    {ended.run_id} from global_step4, step 4, of 4 ranks" in done.stdout
    assert "batch      32 samples as before: 4 samples x 4 accumulation steps on each rank" in done.stdout
    assert "would make global_step4_universal first" in done.stdout
    assert "gradient_accumulation_steps: does nothing" not in done.stderr  # so it does, and we said why
    assert "of memory" in done.stdout
    assert [run.run_id for run in registry.all_runs()] == [ended.run_id]


def test_a_form_that_is_there_is_loaded(ended):
    save_universal(ended.path / "saved/global_step4")
    new = resume(ended, "--nodes", "1")
    placed, start = place_attempt(new, new.plan(), FixedHosts(), 1)
    assert (start.convert, placed.resume_tag) == (False, "global_step4_universal")
    assert placed.deepspeed["checkpoint"] == {"load_universal": True}
    assert (placed.deepspeed["train_batch_size"], placed.deepspeed["gradient_accumulation_steps"]) == (32, 4)
    assert placed.command(1)[-1] == "global_step4_universal"


def test_another_hpz_on_as_many_ranks_needs_nothing(ended):
    new = resume(ended, "--set", "deepspeed.hpz=2")
    placed, start = place_attempt(new, new.plan(), FixedHosts(), 1)
    assert (start.convert, placed.resume_tag) == (False, "global_step4")
    assert "checkpoint" not in placed.deepspeed
    assert placed.deepspeed["zero_optimization"]["zero_hpz_partition_size"] == 2


def test_after_a_restart_it_goes_on_from_what_it_saved_itself(ended):
    new = resume(ended)
    folder, plan = ended.path / "saved", new.plan()
    save_tag(folder, "global_step8")  # of the old run: later than where the new one goes on
    for path in (folder / "latest", *(folder / "global_step8").iterdir()):
        os.utime(path, (1_000_000, 1_000_000))
    new.record_file.write_text(json.dumps(new.record() | {"started": 2_000_000.0}))
    assert tag_to_resume(new, plan, 1).name == "global_step4"
    save_tag(folder, "global_step6")
    assert tag_to_resume(new, plan, 1).name == "global_step4"
    assert tag_to_resume(new, plan, 2).name == "global_step6"


def test_what_the_old_run_saved_just_before_is_not_its_own(ended):
    folder = ended.path / "saved"
    save_tag(folder, "global_step8")
    new = resume(ended, "--tag", "global_step4")
    note_before(new, folder)
    started = (folder / "latest").stat().st_mtime + 10.0
    new.record_file.write_text(json.dumps(new.record() | {"started": started}))
    assert tag_to_resume(new, new.plan(), 2).name == "global_step4"


def test_a_name_that_several_tags_have_is_refused(ended):
    for name in ("a", "b"):
        save_tag(ended.path / "saved" / name, "global_step9")
    path = ended.path / "saved/b/global_step9"
    words = refusal("resume", ended.run_id, "--tag", str(path))
    assert f"--set train.checkpoint_dir={path.parent}" in words
    assert resume(ended, "--set", f"train.checkpoint_dir={path.parent}").plan().resume_tag == "global_step9"


def test_who_cancels_meanwhile_finds_everything_under_its_name(ended):
    folder = ended.path / "saved"
    save_tag(folder, "global_step8")
    made = save_universal(folder / "global_step4")
    new = resume(ended, "--tag", "global_step4", "--nodes", "1")
    shutil.rmtree(made)
    python = folder.with_name("python")
    python.write_text(f"#!/bin/sh\ntouch {new.cancel_file}; sleep 300\n")
    python.chmod(0o755)
    plan = dataclasses.replace(new.plan(), python=str(python))
    assert asyncio.run(Supervisor(new, plan, FixedHosts(), time.time()).run()).state is State.CANCELLED
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])  # whoever ran it hears signals as before
    assert {path.name for path in folder.iterdir()} == {"latest", "global_step4", "global_step8"}


def test_a_tag_that_went_away_is_missed(ended):
    new = resume(ended)
    (ended.path / "saved/global_step4").rename(ended.path / "elsewhere")
    with pytest.raises(CheckpointError, match="is gone"):
        tag_to_resume(new, new.plan(), 1)


def test_the_tag_can_be_named(ended):
    save_tag(ended.path / "saved", "global_step8")
    assert resume(ended).plan().resume_tag == "global_step8"
    assert resume(ended, "--tag", "global_step4").plan().resume_tag == "global_step4"
    assert "one of: global_step4, global_step8" in refusal("resume", ended.run_id, "--tag", "global_step5")


def test_a_batch_that_does_not_fit_is_refused_with_the_fix(ended):
    words = refusal("resume", ended.run_id, "--nodes", "3", "--dry-run")
    assert "the global batch of 32 samples cannot be kept by 6 ranks x 4 samples" in words
    done = click(
        "resume", ended.run_id, "--nodes", "8", "--set", "deepspeed.micro_batch_per_gpu=2", "--dry-run"
    )
    assert "batch      32 samples as before: 2 samples x 1 accumulation step on each" in done.stdout


def test_another_batch_that_the_user_wants_is_his_own(ended):
    done = click("resume", ended.run_id, "--set", "deepspeed.gradient_accumulation_steps=1", "--dry-run")
    assert done.exception is None, done.exception
    assert "a step takes 16 samples from here on, and took 32" in done.stderr


def test_another_setting_of_deepspeed_leaves_the_batch_as_it_was(ended):
    save_universal(ended.path / "saved/global_step4")
    new = resume(ended, "--nodes", "1", "--set", "deepspeed.overrides.wall_clock_breakdown=true")
    config = new.plan().deepspeed
    assert (config["train_batch_size"], config["wall_clock_breakdown"]) == (32, True)


def test_all_three_batch_sizes_in_the_job_file_give_way(here):
    run = submit(here, deepspeed=JOB["deepspeed"] | {"global_batch": 32})
    save_universal(save_tag(run.path / "saved"))
    assert resume(run, "--nodes", "1").plan().deepspeed["gradient_accumulation_steps"] == 4


def test_a_deepspeed_file_is_the_one_of_the_submit(here):
    config = {"zero_optimization": {"stage": 3}, "train_batch_size": 32, "train_micro_batch_size_per_gpu": 4}
    (here / "ds.json").write_text(json.dumps(config))
    run = submit(here, deepspeed={"config_file": "ds.json"})
    save_universal(save_tag(run.path / "saved"))
    (here / "ds.json").write_text("{}")
    again = submit_verdict(resume(run, "--nodes", "1"))
    assert again.plan().deepspeed["gradient_accumulation_steps"] == 4
    assert resume(again, "--nodes", "2").plan().deepspeed["gradient_accumulation_steps"] == 2


def test_a_run_that_is_still_going_on_is_refused(ended):
    ended.verdict_file.unlink()
    ended.write_status(State.CREATED)
    assert f"orchestrate cancel {ended.run_id}" in refusal("resume", ended.run_id)


def test_a_second_run_in_the_same_folder_is_refused(ended):
    new = resume(ended)
    new.record_file.write_text(json.dumps(new.record() | {"supervisor": supervisor_record(os.getpid())}))
    new.write_status(State.RUNNING)
    assert f"another run saves its checkpoints there: {new.run_id}" in refusal("resume", ended.run_id)
    submit_verdict(new)
    resume(ended)


def test_two_at_once_do_not_both_begin(ended):
    """The first may be converting for hours before its new run can be seen."""
    with (ended.path / "resume.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "it is being resumed at this moment" in refusal("resume", ended.run_id)
    new = resume(ended)
    new.supervisor_log.touch()  # started, and has said nothing yet
    (ended.path / "link").symlink_to("saved")
    for words in ([], ["--set", f"train.checkpoint_dir={ended.path / 'link'}"]):
        told = refusal("resume", ended.run_id, *words)
        assert f"another run saves its checkpoints there: {new.run_id}" in told


def test_a_disk_without_room_is_a_run_that_could_not_be_submitted(ended, monkeypatch):
    full = shutil.disk_usage(ended.path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    for words in (["--dry-run"], []):
        done = click("resume", ended.run_id, "--nodes", "1", *words)
        assert "on this disk while it runs" in str(done.exception)
        assert done.exception.exit_code == 3
    assert [run.run_id for run in registry.all_runs()] == [ended.run_id]


def test_a_run_of_another_version_is_refused(ended):
    ended.plan_file.write_text(json.dumps({"run_id": ended.run_id}))
    assert "not a launch plan of this version" in refusal("resume", ended.run_id)


def test_a_run_that_says_no_folder_or_has_saved_nothing_is_refused(here):
    run = submit(here, train={"script": "train.py"})
    assert "--set train.checkpoint_dir=FOLDER" in refusal("resume", run.run_id)
    save_tag(here / "saved")
    new = resume(run, "--set", "train.checkpoint_dir=saved")
    assert new.plan().checkpoint_dir == str(here / "saved")
    run = submit(here)
    assert "nothing was saved yet" in refusal("resume", run.run_id)
    (run.path / "saved").mkdir()
    assert "there is no checkpoint" in refusal("resume", run.run_id)


def test_a_script_that_is_not_told_gets_a_warning(here):
    run = submit(here, train={"script": "train.py", "checkpoint_dir": "{run_dir}/saved"})
    save_tag(run.path / "saved")
    told = click("resume", run.run_id, "--dry-run").stderr
    assert "only ORCHESTRATE_RESUME_TAG tells" in told
    assert """fix: if it does not read that: --set 'train.resume_args=[--resume, "{resume_tag}"]'""" in told


def test_another_stage_is_refused_before_anything_starts(ended):
    words = refusal("resume", ended.run_id, "--set", "deepspeed.zero_stage=2")
    assert "was saved at ZeRO stage 3, which stage 2 cannot load" in words


# -- reshape


def test_reshape_says_what_it_needs_and_what_is_there_already(ended):
    tag = ended.path / "saved/global_step4"
    done = click("checkpoint", "reshape", ended.run_id, "--dry-run")
    assert done.exception is None, done.exception
    assert "global_step4  of 4 ranks, ZeRO-3\nneeds " in done.stdout
    assert not tag.with_name("global_step4_universal").exists()
    made = save_universal(tag)
    done = click("checkpoint", "reshape", str(tag.parent), "--tag", "global_step4", "--json")
    assert json.loads(done.stdout) == {
        "tag": "global_step4",
        "ranks": 4,
        "universal": str(made),
        "made_before": True,
        "notes": [],
    }


def test_reshape_refuses_what_needs_no_reshaping(here):
    save_tag(here / "saved", stage=0, ranks=1)
    assert "fits every number of ranks" in refusal("checkpoint", "reshape", "saved")


def test_reshape_says_when_this_python_has_no_deepspeed(ended):
    words = ("checkpoint", "reshape", ended.run_id, "--python", "/nonexistent/python")
    assert "cannot be started here" in refusal(*words)
