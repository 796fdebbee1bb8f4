from __future__ import annotations

import fcntl
import json
import os
import time

import pytest

from orchestrator import registry
from orchestrator.cli.runs import complete_run
from orchestrator.errors import JobFileError, RunNotFoundError, SubmitError
from orchestrator.job import load_job
from orchestrator.job.matrix import points_of
from orchestrator.monitor.cancel import cancel, cancel_unbegun
from orchestrator.monitor.sweep import cancel_sweep, point_rows, sweep_state
from orchestrator.slurm.allocation import Allocation
from orchestrator.states import State
from orchestrator.sweep.create import create_sweep
from orchestrator.sweep.prepare import prepare_sweep
from orchestrator.sweep.sweepdir import SweepDir
from tests import samples
from tests.samples import click, orchestrate

LOCAL = "{backend: local, nodes: 1}"
SLURM = "{backend: slurm, nodes: 1, slots: 1}"
JOB = "cluster: {cluster}\ntrain: {{script: train.py, args: ['{{lr}}'], secrets: [KEY]}}\nmatrix: {matrix}\n"
TWO = "{lr: [1, 2]}"


@pytest.fixture
def prepared(here):
    """Return a function that prepares the sweep zero-swep of a matrix."""

    def made(matrix: str = TWO, *settings: str, cluster: str = LOCAL, allocation: Allocation | None = None):
        (here / "job.yaml").write_text(JOB.format(cluster=cluster, matrix=matrix))
        job = load_job(here / "job.yaml", settings)
        environ = {"KEY": "value"}
        return prepare_sweep(job, points_of(job), settings, environ, allocation, sweep_id="zero-swep")

    return made


@pytest.fixture
def sweep(prepared, here):
    """Return the sweep zero-swep of three points; nothing of it was started."""
    return create_sweep(prepared("{lr: [1e-4, 2, 3]}"), here / "job.yaml")


def told(prepared, *words: str, **more: str) -> list[str]:
    with pytest.raises(JobFileError) as caught:
        prepared(*words, **more)
    return [str(problem) for problem in caught.value.problems]


# -- what is told before anything is written ----------------------------------------------------------


def test_a_wrong_value_is_told_once_with_its_line_and_the_first_point_that_has_it(prepared, here):
    matrix = "\n  lr: [1, 2]\n  deepspeed.zero_stage: [2, 7]\n  deepspeed.zer: [1]"
    unknown, wrong = told(prepared, matrix)
    assert f"{here}/job.yaml:6: matrix.deepspeed.zer.0: unknown key (in point 0: lr=1,zero_stage=2" in unknown
    assert "\n  fix: DeepSpeed's own keys go under deepspeed.overrides" in unknown
    assert (
        f"{here}/job.yaml:5: matrix.deepspeed.zero_stage.1: expected 0, 1, 2 or 3 (in point 1: lr=1" in wrong
    )


def test_points_do_not_resume_from_each_others_checkpoints(prepared, here):
    (problem,) = told(prepared, TWO, "train.checkpoint_dir=ck")
    assert "train.checkpoint_dir: points 0 and 1 would save in one folder" in problem
    assert f"(got {here}/ck)\n  fix: end it in {{array_index}}" in problem
    apart = prepared(TWO, "train.checkpoint_dir=ck/{array_index}")
    assert [ready.plan.checkpoint_dir for _, ready in apart.points] == [f"{here}/ck/0", f"{here}/ck/1"]
    assert prepared(TWO, "train.checkpoint_dir=ck", "train.resume=never").points


@pytest.mark.parametrize(
    ("parameter", "asks"),
    [
        ("cluster.nodes: [1, 2]", "#SBATCH --nodes=2"),
        ("name: [a, b]", "#SBATCH --job-name=b"),
        ("cluster.slurm.time: [30, 60]", "#SBATCH --time=60"),
    ],
)
def test_one_array_asks_slurm_for_one_thing(prepared, here, parameter, asks):
    (problem,) = told(prepared, f"{{lr: [1, 2], {parameter}, grace: [5, 6]}}", cluster=SLURM)
    key = parameter.partition(":")[0]
    what = "changes what Slurm is asked for, and all points are tasks of one array"
    assert problem.startswith(f"{here}/job.yaml:3: matrix.{key}: {what} (got {asks}")
    assert "\n  fix: remove it from matrix" in problem


def test_what_only_the_points_themselves_need_may_differ_in_an_array(prepared):
    ready = prepared("{lr: [1, 2], time_limit: [60, 70], train.resume: [always, never]}", cluster=SLURM)
    assert len(ready.points) == 8
    assert ready.parallel is None
    assert "#SBATCH --array=0-7\n" in ready.script
    assert (
        "#SBATCH --array=0-7%3\n"
        in prepared("{lr: [1, 2], grace: [1, 2, 3, 4]}", "parallel=3", cluster=SLURM).script
    )


def test_points_in_an_allocation_take_turns_on_its_hosts(prepared):
    held = Allocation("7", "7", 0, ("node1",), None, None)
    ready = prepared(cluster=SLURM, allocation=held)
    assert (ready.parallel, ready.script) == (1, "")


# -- what is written ----------------------------------------------------------------------------------


def test_every_point_has_a_run_directory_of_its_own(sweep, here):
    assert sweep.path == here / "runs/zero-swep"
    assert sweep.job_file.read_text() == (here / "job.yaml").read_text()
    written = sweep.read()
    assert (written["backend"], written["parallel"]) == ("local", 1)
    assert [(point["index"], point["label"], point["run_id"]) for point in written["points"]] == [
        (0, "lr=1e-4", "zero-swep.0"),
        (1, "lr=2", "zero-swep.1"),
        (2, "lr=3", "zero-swep.2"),
    ]
    assert 'train.args=["1e-4"]' in written["points"][0]["overrides"]
    for (_, run), value in zip(sweep.points(), ("1e-4", "2", "3"), strict=True):
        alone = load_job(run.job_file).spec
        assert (alone.train.args, alone.matrix) == ([value], None)
        assert (run.plan().run_id, run.plan().run_dir) == (run.run_id, str(run.path))
        assert run.status()["state"] is State.PENDING
        assert run.secrets_file.stat().st_mode & 0o777 == 0o600


def test_a_sweep_does_not_take_the_place_of_another(sweep, prepared, here):
    with pytest.raises(SubmitError, match="cannot write the sweep: File exists"):
        create_sweep(prepared(), here / "job.yaml")
    assert len(sweep.points()) == 3
    assert all(run.plan_file.exists() for _, run in sweep.points())


def test_half_a_sweep_is_none(prepared, here):
    ready = prepared(TWO, "train.snapshot=true")
    (here / "gone").symlink_to("nowhere")  # what the snapshot cannot copy
    with pytest.raises(SubmitError, match="cannot copy the workdir"):
        create_sweep(ready, here / "job.yaml")
    assert list((here / "runs").iterdir()) == []


def test_a_snapshot_leaves_out_all_runs(prepared, here):
    samples.run_dir(here / "runs", "other")
    sweep = create_sweep(prepared(TWO, "train.snapshot=true"), here / "job.yaml")
    names = {path.name for path in (sweep.path / "zero-swep.1/workdir").iterdir()}
    assert {"train.py", "job.yaml"} <= names
    assert "runs" not in names


# -- its state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "driven", "state", "words"),
    [
        (["SUCCEEDED", "SUCCEEDED"], True, "SUCCEEDED", "2 SUCCEEDED"),
        (["SUCCEEDED", "RUNNING", "PENDING"], True, "RUNNING", "1 SUCCEEDED, 1 RUNNING, 1 waiting"),
        (["PENDING", "PENDING"], True, "PENDING", "2 waiting"),
        (["PENDING"], False, "LOST", "1 waiting; nobody starts what waits"),
        (["CANCELLED", "FAILED", "SUCCEEDED"], False, "FAILED", "1 CANCELLED, 1 FAILED, 1 SUCCEEDED"),
        (["CANCELLED", "SUCCEEDED"], False, "CANCELLED", "1 CANCELLED, 1 SUCCEEDED"),
    ],
)
def test_the_state_of_a_sweep_is_that_of_its_points(states, driven, state, words):
    rows = [{"state": State(word)} for word in states]
    assert sweep_state(rows, driven=driven) == (State(state), words)


def test_a_sweep_is_driven_while_somebody_holds_its_lock(sweep):
    assert not sweep.is_driven()
    with sweep.lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep.is_driven()
    assert not sweep.is_driven()


def test_points_of_an_array_are_started_by_slurm_alone(sweep, here):
    sweep.batch_script.touch()
    done = orchestrate("supervise", str(sweep.path), cwd=here)
    assert done.returncode == 3
    assert f"Slurm starts these points: sbatch {sweep.path}/slurm.sbatch" in done.stderr
    assert {row["state"] for row in point_rows(sweep)} == {State.PENDING}


def test_a_point_that_waits_is_cancelled_at_once_and_keeps_no_secret(sweep):
    (_, first), (_, second), _ = sweep.points()
    assert cancel(first) == (State.CANCELLED, "cancelled by the user before its turn in the sweep")
    assert not first.secrets_file.exists()
    assert second.secrets_file.exists()
    assert cancel(first)[1].startswith("had ended already")


def test_a_point_that_has_just_been_taken_is_not_one_that_waits(sweep):
    (_, run) = sweep.points()[0]
    with (run.path / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not cancel_unbegun(run)
    assert run.verdict() is None


def test_a_run_that_is_no_point_never_counts_as_waiting_for_a_turn(tmp_path):
    run = samples.run_dir(tmp_path)
    run.write_status(State.PENDING, "handed to Slurm")
    assert not cancel_unbegun(run)


def test_a_sweep_that_nobody_drives_can_be_cancelled(sweep):
    assert cancel_sweep(sweep) == (State.CANCELLED, "3 CANCELLED")
    assert {row["state"] for row in point_rows(sweep)} == {State.CANCELLED}


# -- how it is found ----------------------------------------------------------------------------------


def test_a_sweep_and_its_points_are_found_by_id_beginning_path_and_last(sweep, here):
    for word in ("zero-swep", "zero", "runs/zero-swep", "last"):
        found = registry.find_sweep(word)
        assert found is not None
        assert found.path == sweep.path
    for word in ("zero-swep.1", "zero.1", "last.1", "runs/zero-swep/zero-swep.1"):
        assert registry.find(word).path == sweep.path / "zero-swep.1"
    assert registry.all_runs(here / "runs") == []


def test_a_run_after_a_sweep_is_the_last(sweep, here):
    run = samples.run_dir(here / "runs", "later")
    os.utime(run.plan_file, (time.time() + 1,) * 2)
    assert registry.find_sweep("last", here / "runs") is None
    assert registry.find("last", here / "runs").run_id == "later"


@pytest.mark.parametrize(
    ("word", "what"),
    [
        (
            "zero-swep.7",
            "the sweep has no such point (got zero-swep.7)\n  fix: one of: zero-swep.0, zero-swep.1,",
        ),
        ("zero-swep", "is a sweep of many runs (got zero-swep)\n  fix: one of: zero-swep.0, zero-swep.1,"),
        ("last", "is a sweep of many runs (got last)\n  fix: one of: zero-swep.0, zero-swep.1,"),
        ("gone", "no run has that id (got gone)\n  fix: one of: zero-swep"),
    ],
)
def test_what_is_no_run_is_told_with_what_there_is(sweep, word, what):
    with pytest.raises(RunNotFoundError) as caught:
        registry.find(word)
    assert str(caught.value).startswith(f"RUN: {what}")


def test_a_beginning_that_a_run_and_a_sweep_have_is_neither(sweep, zero_run, here):
    for command in ("status", "cancel"):
        done = orchestrate(command, "zero", cwd=here)
        assert done.returncode == 2
        assert "2 runs have an id that begins so" in done.stderr
        assert "zero-swep, zero-aaaa" in done.stderr
    assert registry.find("zero-aaaa", here / "runs").path == zero_run.path


# -- what the command shows ---------------------------------------------------------------------------


def test_list_shows_a_sweep_as_one_line_and_its_points_when_asked(sweep, here):
    cancel(sweep.points()[0][1])
    (_, line) = click("list").output.splitlines()
    assert line.split()[:2] == ["zero-swep", "LOST"]
    assert "sweep: 1 CANCELLED, 2 waiting; nobody starts what waits" in line
    _, _, *points = click("list", "--all-points").output.splitlines()
    assert [point.split()[:2] for point in points] == [
        ["zero-swep.0", "CANCELLED"],
        ["zero-swep.1", "PENDING"],
        ["zero-swep.2", "PENDING"],
    ]
    (entry,) = json.loads(click("list", "--json", "--all-points").output)
    assert [point["label"] for point in entry["points"]] == ["lr=1e-4", "lr=2", "lr=3"]


def test_the_shell_completes_sweeps_and_then_their_points(sweep):
    assert complete_run(None, None, "zero") == ["zero-swep"]  # type: ignore[arg-type]
    assert complete_run(None, None, "zero-swep.") == [f"zero-swep.{i}" for i in range(3)]  # type: ignore[arg-type]


def test_a_dry_run_and_render_of_a_sweep_write_nothing(here):
    (here / "job.yaml").write_text(JOB.format(cluster=SLURM, matrix=TWO))
    before = sorted(here.rglob("*"))
    dry = orchestrate("submit", "--dry-run", "job.yaml", cwd=here, KEY="secret")
    assert "2 points are right" in dry.stdout
    assert "lr=2" in dry.stdout
    printed = orchestrate("render", "job.yaml", cwd=here, KEY="secret").stdout
    assert sorted(here.rglob("*")) == before
    assert "2 points; these are the files of point 0: lr=1" in printed
    assert printed.count("#SBATCH --array=0-1") == 1
    assert "export KEY=<not shown>" in printed
    listed = orchestrate("render", "job.yaml", "-o", "out", cwd=here, KEY="secret").stdout.split()
    assert {"out/slurm.sbatch", "out/0/slurm.sbatch", "out/1/attempt-1/rendered/node.sh"} <= set(listed)


def test_a_sweep_that_is_not_started_says_what_would_start_it(here):
    (here / "job.yaml").write_text(JOB.format(cluster=LOCAL, matrix=TWO))
    done = orchestrate("submit", "--no-start", "--json", "job.yaml", cwd=here, KEY="secret")
    said = json.loads(done.stdout)
    assert said["command"][-2:] == ["supervise", said["sweep_dir"]]
    assert [row["state"] for row in point_rows(SweepDir(here / "runs" / said["sweep_id"]))] == ["PENDING"] * 2
    text = orchestrate("submit", "--no-start", "job.yaml", cwd=here, KEY="secret").stdout
    assert "start it with   " in text
