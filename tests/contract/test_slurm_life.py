"""The life of a job on a real Slurm cluster: taken, cut short, queued again, refused, lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import Site, take_hosts, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.product import Run
    from tests.testbed import Testbed

SAVING = Path(__file__).with_name("saving_script.py")
SLEEPING = {"args": ["--sleep", "900"]}
LEASE = 10
"""Seconds: enough for a busy machine, half of what the testbed's Slurm waits for a host (SlurmdTimeout)."""


def saving(site: Site, *words: str, **train: Any) -> dict[str, Any]:
    """Return a `train` section whose script saves checkpoints."""
    told = ["--resume", "{resume_tag}"]
    return {"script": str(SAVING), "checkpoint_dir": str(site.folder / "saved"), "resume_args": told} | {
        "args": list(words),
        **train,
    }


def squeue(site: Site, job_id: str, field: str = "%T") -> str:
    """Return one field of a job as squeue shows it."""
    argv = ("squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={field}")
    return site.bed.slurm.run(*argv).stdout.strip()


def job_of(run: Run) -> str:
    """Return the id of a run's Slurm job."""
    return run.slurm_job()


def wait_for_attempt(run: Run, number: int, ranks: int = 4) -> None:
    """Wait until all ranks of an attempt have said their first words, and so can answer a signal."""
    logs = run.path / f"attempt-{number}/logs"
    wait_until(lambda: sum(bool(log.stat().st_size) for log in logs.glob("*.rank*.out")) == ranks, run.story)


def wait_for_save(run: Run) -> None:
    """Wait until rank 0 has written a checkpoint as a whole."""
    latest = run.site.folder / "saved/latest"
    wait_until(lambda: latest.exists() and latest.read_text(), run.story)


def bring_time_limit_near(run: Run) -> None:
    """Have Slurm end a job in 90 s or a minute more: its ranks have started, however long that took."""
    started = json.loads((run.path / "record.json").read_text())["started"]
    minutes = int((time.time() - started + 30) / 60) + 2
    done = run.site.bed.slurm.run("scontrol", "update", f"JobId={job_of(run)}", f"TimeLimit={minutes}")
    assert done.returncode == 0, done.stderr


def asked_anew(run: Run) -> dict[str, Any]:
    """Return the status without what Slurm said up to ten seconds ago."""
    for answer in (run.site.folder / "state/orchestrate/slurm").glob("*.json"):
        answer.unlink()
    return run.status()


# -- ended from outside


def test_scancel_is_told_from_a_failure(slurm: Site) -> None:
    run = slurm.submit(train=SLEEPING)
    run.wait_for_ranks()
    slurm.bed.slurm.run("scancel", job_of(run))
    verdict = run.wait()
    assert (verdict["state"], verdict["first_failure"]) == ("CANCELLED", None), run.story()
    assert "scancel" in verdict["summary"]
    assert {host["state"] for host in verdict["hosts"]} == {"ended"}
    run.see_nothing_left()


def test_a_job_that_waits_is_cancelled_at_once_and_says_why_it_waited(slurm: Site) -> None:
    first = slurm.submit("first", train=SLEEPING)
    first.wait_for_ranks()
    second = slurm.submit("second", train=SLEEPING)
    status = wait_until(lambda: _waiting(second), second.story)
    assert f"Slurm job {job_of(second)}: waiting for" in status["reason"]
    done = slurm.orchestrate("cancel", second.run_id)
    assert done.returncode == 0, done.stderr
    assert "CANCELLED" in done.stdout
    assert second.verdict()["state"] == "CANCELLED"
    assert "queue" in second.verdict()["summary"]
    assert squeue(slurm, job_of(second)) == "CANCELLED"
    assert slurm.orchestrate("cancel", first.run_id).returncode == 0
    assert first.verdict()["summary"] == "cancelled by the user"


def _waiting(run: Run) -> dict[str, Any] | None:
    status = asked_anew(run)
    return status if status["state"] == "PENDING" and "waiting for" in status["reason"] else None


def test_a_supervisor_killed_on_the_batch_host_gets_a_verdict_from_slurm(slurm: Site) -> None:
    run = slurm.submit(train=SLEEPING)
    run.wait_for_ranks()
    os.kill(run.events("supervisor")[0]["pid"], signal.SIGKILL)
    state = wait_until(lambda: _settled(run), run.story)
    assert state["state"] == "FAILED"
    assert f"Slurm job {job_of(run)} failed (killed by signal 9" in state["summary"]
    run.see_nothing_left()


def _settled(run: Run) -> dict[str, Any] | None:
    asked_anew(run)  # whoever asks writes the verdict that nobody is left to write
    return run.verdict()


def test_a_job_that_dies_before_it_wrote_anything_is_no_riddle(slurm: Site) -> None:
    for node in slurm.bed.nodes:
        node.hide(slurm.folder)
    run = slurm.submit(train=SLEEPING)
    verdict = wait_until(lambda: _settled(run), run.story)
    assert verdict["state"] == "FAILED"
    assert f"Slurm job {job_of(run)} failed" in verdict["summary"]
    assert "left no verdict of its own" in verdict["summary"]
    assert str(run.path) in verdict["summary"]  # what every node has to see


def test_slurmctld_may_restart_in_mid_run(slurm: Site) -> None:
    run = slurm.submit(train={"args": ["--until", str(slurm.gate)]})
    run.wait_for_ranks()
    slurm.bed.slurm.stop_controller()
    status = run.status()
    assert status["state"] == "RUNNING"
    slurm.bed.slurm.start_controller()
    slurm.gate.touch()
    run.succeed()
    wait_until(lambda: squeue(slurm, job_of(run)) == "COMPLETED", run.story)


def test_a_drained_host_finishes_its_run(slurm: Site) -> None:
    run = slurm.submit(train={"args": ["--until", str(slurm.gate)]})
    run.wait_for_ranks()
    slurm.bed.slurm.run("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    slurm.gate.touch()
    run.succeed()


# -- queued again


def test_a_preempted_run_goes_on_from_its_checkpoint(slurm: Site) -> None:
    run = slurm.submit(train=saving(slurm, "--at-start", "--until", "2"))
    wait_for_attempt(run, 1)
    wait_for_save(run)
    (slurm.folder / "saved/global_step99").mkdir()  # half-written: nobody may go on from it
    take_hosts(slurm, until=slurm.gate)
    wait_until(lambda: asked_anew(run)["state"] == "PENDING", run.story)
    assert run.verdict() is None
    slurm.gate.touch()
    run.succeed()
    assert run.log("node1.rank0.out").splitlines()[0] == "attempt 1 resume - told -"
    assert run.log("node1.rank0.out", attempt=2) == "attempt 2 resume global_step1 told global_step1\n"
    assert run.attempt_verdict(1)["state"] == "PREEMPTED"
    assert "preempted" in run.attempt_verdict(1)["summary"]
    run.see_nothing_left()
    told = json.loads(slurm.orchestrate("report", run.run_id, "--json").stdout)
    assert [one["resumed_from"] for one in told["attempts"]] == [None, "global_step1"]
    waited = [(kind, attempt) for *_, kind, attempt in told["goodput"]["segments"] if kind == "queue"]
    assert waited[-1] == ("queue", 2)  # between the attempts


def test_the_ranks_have_their_grace_when_slurm_gives_one(slurm: Site) -> None:
    asked = {"slurm": {"partition": "graceful"}}
    run = slurm.submit(cluster=asked, grace=30, train=saving(slurm, "--at-term", "--until", "2"))
    wait_for_attempt(run, 1)
    take_hosts(slurm)
    run.succeed()
    assert "signal 15, attempt 1" in run.log("node2.rank3.out")
    assert run.log("node1.rank0.out", attempt=2) == "attempt 2 resume global_step10 told global_step10\n"


def test_a_partition_that_cancels_ends_the_run_as_preempted(slurm: Site) -> None:
    run = slurm.submit(cluster={"slurm": {"partition": "cancelled"}}, train=SLEEPING)
    run.wait_for_ranks()
    take_hosts(slurm)
    verdict = wait_until(lambda: _settled(run), run.story)
    assert verdict["state"] == "PREEMPTED", run.story()
    assert run.status()["state"] == "PREEMPTED"
    run.see_nothing_left()


def test_the_time_limit_saves_and_queues_again_only_what_can_go_on(slurm: Site) -> None:
    # Slurm looks at time limits every 30 s, and signals up to 30 s before it is asked to (22.05).
    asked = {"nodes": 1, "slurm": {"signal_before": 55}}
    fruitless = slurm.submit("fruitless", cluster=asked, train=SLEEPING)
    saved = saving(slurm, "--at-term", "--until", "2")
    run = slurm.submit(cluster=asked, grace=30, train=saved)
    fruitless.wait_for_ranks(2)
    wait_for_attempt(run, 1, ranks=2)
    for each in (fruitless, run):
        bring_time_limit_near(each)
    verdict = run.wait(within=600)
    assert verdict["state"] == "SUCCEEDED", run.story()
    assert run.attempt_verdict(1)["state"] == "TIMEOUT"
    first, *_ = sorted(path.name for path in (run.path / "attempt-1/logs").glob("*.rank0.out"))
    assert "signal 15, attempt 1" in run.log(first)
    (second,) = (run.path / "attempt-2/logs").glob("*.rank0.out")
    assert second.read_text() == "attempt 2 resume global_step10 told global_step10\n"
    verdict = fruitless.wait()
    assert verdict["state"] == "TIMEOUT"
    assert "train.checkpoint_dir is not set" in verdict["summary"]


def test_a_run_is_not_queued_again_for_ever(slurm: Site) -> None:
    run = slurm.submit(max_restarts=0, train=SLEEPING)
    run.wait_for_ranks()
    slurm.bed.slurm.run("scontrol", "requeue", job_of(run))
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    assert "queued again 1 time, and max_restarts is 0" in verdict["summary"]


def test_a_finished_run_is_never_started_again(slurm: Site) -> None:
    run = slurm.submit(train={"args": ["--lines", "1"]})
    run.succeed()
    job = job_of(run)
    wait_until(lambda: squeue(slurm, job) == "COMPLETED", run.story)
    slurm.bed.slurm.run("scontrol", "requeue", job)
    wait_until(lambda: squeue(slurm, job, "%r") and _restarted(slurm, job), run.story)
    assert [path.name for path in run.path.glob("attempt-*")] == ["attempt-1"]
    assert len(run.events("supervisor")) == 1


def _restarted(site: Site, job: str) -> bool:
    told = site.bed.slurm.run("scontrol", "show", "job", job).stdout
    return "Restarts=1" in told and "JobState=COMPLETED" in told


@pytest.fixture
def three(make_bed: Callable[..., Testbed], tmp_path: Path) -> Iterator[Site]:
    """Three hosts of a Slurm cluster, so that a run of two can go on without one."""
    site = Site("slurm", tmp_path, make_bed(nodes=3, slots=2, slurm=True))
    yield site
    for run in site.submitted:
        site.bed.slurm.run("scancel", job_of(run))


def test_a_run_goes_on_without_the_batch_host_that_died(three: Site) -> None:
    run = three.submit(lease=LEASE, train=saving(three, "--at-start", "--until", "2"))
    wait_for_attempt(run, 1)
    wait_for_save(run)
    three.bed.node("node1").crash()
    verdict = run.wait(within=600)
    assert verdict["state"] == "SUCCEEDED", run.story()
    assert [host["name"] for host in verdict["hosts"]] == ["node2", "node3"]
    assert run.attempt_verdict(1)["state"] == "PREEMPTED"
    assert "resume global_step1 " in run.log("node2.rank0.out", attempt=2)


def test_a_run_goes_on_without_the_host_that_died(three: Site) -> None:
    run = three.submit(lease=LEASE, train=saving(three, "--at-start", "--until", "2"))
    wait_for_attempt(run, 1)
    wait_for_save(run)
    three.bed.node("node2").crash()
    verdict = run.wait(within=600)
    assert verdict["state"] == "SUCCEEDED", run.story()
    assert [host["name"] for host in verdict["hosts"]] == ["node1", "node3"]
    first = run.attempt_verdict(1)
    assert (first["state"], first["first_failure"]["host"]) == ("FAILED", "node2")
    assert "lost" in first["summary"] or "declared node2 down" in first["summary"]  # who noticed first
    assert "resume global_step1 " in run.log("node1.rank0.out", attempt=2)
    shown = three.orchestrate("logs", run.run_id, "--attempt", "1", "--host", "node2")
    assert shown.returncode == 0, shown.stderr


def test_a_host_that_is_lost_with_no_restart_left_ends_the_run(slurm: Site) -> None:
    asked = {"slurm": {"requeue": False}}  # else it waits for node2 for ever, if Slurm is the first to notice
    run = slurm.submit(lease=LEASE, max_restarts=0, cluster=asked, train=SLEEPING)
    run.wait_for_ranks()
    node = slurm.bed.node("node2")
    node.crash()
    try:
        verdict = run.wait()
    finally:
        slurm.bed.slurm.revive(node)
    assert (verdict["state"], verdict["first_failure"]["host"]) == ("FAILED", "node2"), run.story()
    assert verdict["summary"].endswith("not started again: max_restarts is 0")
