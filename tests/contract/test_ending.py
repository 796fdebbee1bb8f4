"""Ends that somebody decides on: cancel, the time limit, a killed supervisor, a terminal that goes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.contract.product import GATED_SCRIPT, PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.contract.product import Run, Site


def see_all_stopped(run: Run) -> None:
    """See that every rank that ran was told to end, and nothing of the run is left."""
    told = {rank for rank in run.reports() if run.note(rank, "sigterm") is not None}
    assert told == set(run.reports())
    see_none_failed(run)


def see_none_failed(run: Run) -> None:
    """See that every rank that ran was stopped, and nothing of the run is left."""
    assert set(run.roles().values()) <= {"stopped", "never started"}, run.story()
    run.see_nothing_left()


def test_cancel_ends_a_run_once_however_often_it_is_asked(site: Site) -> None:
    run = site.submit(train={"args": ["--sleep", "300", "--children", "4"]})
    run.wait_for_ranks()
    argv, environ = site.command("cancel", run.run_id)
    both = [subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("CANCELLED" in words for words in said)
    verdict = run.wait()
    assert (verdict["state"], verdict["summary"]) == ("CANCELLED", "cancelled by the user")
    assert verdict["first_failure"] is None
    see_all_stopped(run)
    later = site.orchestrate("cancel", run.run_id)
    assert later.returncode == 0
    assert "had ended already" in later.stdout
    assert run.verdict() == verdict


def test_cancel_before_any_rank_has_started(site: Site) -> None:
    run = site.submit(train={"args": ["--sleep", "300"]})
    assert site.orchestrate("cancel", run.run_id).returncode == 0
    assert run.wait()["state"] == "CANCELLED"
    see_all_stopped(run)


def tell_early(site: Site, moment: str) -> None:
    """Have every supervisor of the site get SIGTERM at this moment (see told_early.py)."""
    (site.folder / "sitecustomize.py").symlink_to(Path(__file__).with_name("told_early.py"))
    path = os.pathsep.join([str(site.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    site.environ.update(PYTHONPATH=path, TOLD_AT=moment)


def test_cancel_in_the_moment_in_which_the_supervisor_starts(slurm: Site) -> None:
    tell_early(slurm, "start")
    run = slurm.submit(train={"args": ["--sleep", "300"]})
    verdict = wait_until(lambda: run.status() and run.verdict(), run.story)
    assert (verdict["state"], verdict["summary"]) == ("CANCELLED", "cancelled by the user")
    see_all_stopped(run)


def test_a_supervisor_that_is_told_to_end_before_it_listens_ends_in_order(site: Site) -> None:
    tell_early(site, "begin")
    run = site.submit(train={"args": ["--sleep", "300"]})
    verdict = run.wait()
    assert (verdict["state"], verdict["summary"]) == ("CANCELLED", "the supervisor was told to end")
    see_all_stopped(run)


def test_a_signal_while_the_verdict_is_written_costs_nothing(local: Site) -> None:
    tell_early(local, "verdict")
    local.submit().succeed()


def test_cancel_after_the_end_changes_nothing(local: Site) -> None:
    run = local.submit()
    verdict = run.succeed()
    done = local.orchestrate("cancel", run.run_id)
    assert done.returncode == 0
    assert "SUCCEEDED" in done.stdout
    assert run.verdict() == verdict
    assert not (run.path / "cancel").exists()


def test_the_time_limit_ends_a_run(site: Site) -> None:
    run = site.submit(time_limit=4, train={"args": ["--sleep", "300", "--ignore-sigterm"]}, grace=1)
    verdict = run.wait()
    assert verdict["state"] == "TIMEOUT"
    assert "time limit of 4 s" in verdict["summary"]
    assert run.status()["state"] == "TIMEOUT"
    # A rank on a busy machine may need longer than `grace` to write down that it was told.
    told = {rank for event in run.events("sigterm") for rank in event["ranks"]}
    assert told >= set(run.reports()), run.story()
    see_none_failed(run)


def test_ranks_of_a_killed_supervisor_end_when_the_lease_runs_out(detached: Site) -> None:
    # As short as a busy machine allows: this is how long it may hold up the supervisor, too.
    run = detached.submit(lease=8, train={"args": ["--sleep", "300", "--children", "4"]})
    run.wait_for_ranks()
    (event,) = run.events("supervisor")
    os.kill(event["pid"], signal.SIGKILL)
    wait_until(lambda: run.status()["state"] == "LOST", run.story)
    run.see_nothing_left()
    assert [rank for rank in range(4) if run.note(rank, "sigterm") is None] == []
    assert run.verdict() is None
    assert "supervisor" in run.status()["reason"]
    again = detached.orchestrate("cancel", run.run_id)
    assert again.returncode == 1
    assert "LOST" in again.stdout
    taken = detached.orchestrate("supervise", str(run.path))
    assert taken.returncode == 3, "the ranks have ended: there is nothing to take over, and nothing to repeat"
    assert "submit the job again" in taken.stderr


def test_follow_ends_with_the_run_and_tells_its_end(local: Site) -> None:
    good = local.orchestrate("submit", "--follow", str(local.job("good", train={"args": ["--lines", "2"]})))
    assert good.returncode == 0
    assert "out rank 0 line 1" in good.stdout
    assert "SUCCEEDED" in good.stdout
    words = ["--raise", "no luck", "--fail-rank", "3", "--sleep", "300"]
    job = local.job("bad", train={"script": str(GATED_SCRIPT), "args": words})
    bad = local.orchestrate("submit", "--follow", str(job))
    assert bad.returncode == 1
    assert re.search(
        r"^FAILED  rank 3 on host-1 failed first at .*: RuntimeError: no luck", bad.stdout, re.MULTILINE
    )
    assert "attempt-1/logs/host-1.rank3.err" in bad.stdout


def test_a_run_outlives_the_terminal_that_follows_it(site: Site) -> None:
    job = site.job(train={"args": ["--until", str(site.gate), "--lines", "3"]})
    argv, environ = site.command("submit", "--follow", str(job))
    terminal = site.folder / "terminal"
    with terminal.open("wb") as out:
        options = {"stdout": out, "stderr": out, "cwd": site.folder, "start_new_session": True}
        follower = subprocess.Popen(argv, env=environ, **options)
    try:
        (path,) = wait_until(lambda: list((site.folder / "runs").glob("*/events.jsonl")), lambda: "the run")
        run = site.run_of({"run_id": path.parent.name, "run_dir": str(path.parent)})
        run.wait_for_ranks()
        wait_until(lambda: "REPORT" in terminal.read_text(), run.story)  # it follows: submit itself is over
        os.killpg(follower.pid, signal.SIGINT)  # what Ctrl-C does: to everything in the terminal
        assert follower.wait(PATIENCE) == 130, terminal.read_text()
    finally:
        follower.kill()
        follower.wait()
    said = terminal.read_text()
    assert f"orchestrate cancel {run.run_id}" in said
    assert "Traceback" not in said
    site.gate.touch()
    run.succeed()
    assert run.note(0, "sigterm") is None
    run.see_nothing_left()
