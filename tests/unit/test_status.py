from __future__ import annotations

import json
import shutil
import time

import pytest

from orchestrator.monitor.cancel import cancel
from orchestrator.monitor.status import current_status, events, host_rows
from orchestrator.rundir import write_json
from orchestrator.slurm.queue import Answer
from orchestrator.slurm.words import JobInfo, JobState
from orchestrator.states import State
from tests import samples


def record(run, supervisor: dict | None) -> None:
    write_json(run.record_file, {"run_id": run.run_id, **({"supervisor": supervisor} if supervisor else {})})


@pytest.fixture
def run(tmp_path):
    """Return a run that this process supervises."""
    return samples.run_dir(tmp_path, state=State.RUNNING)


@pytest.fixture
def gone(spawn):
    """Return the pid of a process that was and is no more."""
    process = spawn("true")
    process.wait()
    return process.pid


def test_a_run_whose_supervisor_lives_is_what_its_file_says(run):
    assert current_status(run)["state"] is State.RUNNING


def test_a_run_whose_supervisor_is_gone_is_lost_and_says_what_to_do(run, gone):
    record(run, samples.supervisor_record(gone, started=1))
    status = current_status(run)
    assert status["state"] is State.LOST
    assert "its hosts have given it up" in status["reason"]
    run.attempt(1).control_file.write_text("{}")  # agents are still waiting
    assert f"orchestrate supervise {run.path}" in current_status(run)["reason"]


def test_a_run_whose_directory_was_removed_is_lost_and_nobody_is_asked_to_take_it_over(run):
    shutil.rmtree(run.path)
    assert current_status(run)["reason"] == f"its directory is gone: {run.path}"


def test_another_process_with_the_supervisors_pid_is_not_the_supervisor(run, spawn):
    process = spawn("sleep", "60")
    known = samples.supervisor_record(process.pid)
    record(run, known)
    assert current_status(run)["state"] is State.RUNNING
    record(run, known | {"started": known["started"] - 1})
    assert current_status(run)["state"] is State.LOST


def test_of_a_supervisor_on_another_host_nothing_is_known(run, gone):
    record(run, samples.supervisor_record(gone, host="elsewhere"))
    assert current_status(run)["state"] is State.RUNNING


@pytest.mark.parametrize("state", [state for state in State if state.is_final and state is not State.LOST])
def test_a_verdict_is_the_last_word(run, gone, state):
    record(run, samples.supervisor_record(gone, started=1))
    run.write_verdict({"state": state, "summary": "why", "ended": 7.0})
    assert current_status(run) == {"state": state, "since": 7.0, "reason": "why"}


def test_a_new_run_has_a_moment_until_its_supervisor_must_have_spoken(tmp_path):
    run = samples.run_dir(tmp_path)
    assert current_status(run)["state"] is State.CREATED
    write_json(run.status_file, {"state": "CREATED", "since": time.time() - 60, "reason": ""})
    assert current_status(run)["state"] is State.LOST


def test_a_supervisor_that_takes_long_to_start_is_not_gone_until_its_process_is(tmp_path, spawn):
    run = samples.run_dir(tmp_path)
    process = spawn("sleep", "60")
    run.note_start(process.pid)
    write_json(run.status_file, {"state": "CREATED", "since": time.time() - 60, "reason": ""})
    assert current_status(run)["state"] is State.CREATED
    process.kill()
    process.wait()
    assert current_status(run)["state"] is State.LOST


@pytest.mark.parametrize("text", ["", "{", '{"state": "DANCING"}', '{"reason": "x"}'])
def test_a_broken_status_file_is_no_exception(run, gone, text):
    run.status_file.write_text(text)
    assert current_status(run)["state"] in (State.UNKNOWN, State.CREATED)
    record(run, None)
    assert current_status(run)["state"] is State.LOST
    record(run, samples.supervisor_record(gone, started=1))
    assert current_status(run)["state"] is State.LOST


def test_an_event_that_is_being_written_is_left_for_later(run):
    assert events(run) == []
    run.add_event("one")
    with run.events_file.open("a") as file:
        file.write('{"event": "tw')
    assert [event["event"] for event in events(run)] == ["one"]


def test_an_event_may_hold_any_character_and_end_inside_one(run):
    run.add_event("one", words="a\u2028b\x85c")
    with run.events_file.open("ab") as file:
        file.write('{"event": "é'.encode()[:-1])
    assert [event["words"] for event in events(run)] == ["a\u2028b\x85c"]


def test_hosts_of_a_running_run_are_shown_from_its_events(run):
    run.add_event("host_ready", host="node1")
    run.add_event("host_ready", host="node2")
    run.add_event("launcher_started", host="node2")
    run.add_event("host_ready", host="unknown")
    assert [(row["host"], row["state"], row["ranks"]) for row in host_rows(run)] == [
        ("node1", "ready", "2"),
        ("node2", "running", "2"),
    ]


def test_hosts_of_an_ended_run_are_shown_from_its_verdict(run):
    ranks = [
        {"role": "cause", "message": "bad"},
        {"role": "victim", "message": "x"},
        {"role": "victim", "message": ""},
    ]
    hosts = [
        {"name": "node1", "state": "ended", "message": "launcher's words", "ranks": ranks},
        {"name": "node2", "state": "failed", "message": "lost", "ranks": []},
    ]
    run.write_verdict({"state": "FAILED", "hosts": hosts})
    assert host_rows(run) == [
        {"host": "node1", "state": "ended", "ranks": "1 cause, 2 victim", "message": "bad"},
        {"host": "node2", "state": "failed", "ranks": "", "message": "lost"},
    ]


def test_a_run_that_has_ended_is_not_cancelled_again(run):
    run.write_verdict({"state": "FAILED", "summary": "why", "ended": 7.0})
    assert cancel(run) == (State.FAILED, "had ended already: why")
    assert not run.cancel_file.exists()


def test_a_cancelled_run_is_waited_for(run, python):
    program = """
import json, pathlib, sys, time
run = pathlib.Path(sys.argv[1])
while not (run / "cancel").exists():
    time.sleep(0.02)
(run / ".v").write_text(json.dumps({"state": "CANCELLED", "summary": "cancelled by the user", "ended": 1}))
(run / ".v").rename(run / "verdict.json")
"""
    supervisor = python(program, run.path)
    record(run, samples.supervisor_record(supervisor.pid))
    assert cancel(run) == (State.CANCELLED, "cancelled by the user")


def test_a_lost_run_without_agents_stays_lost(run, gone):
    record(run, samples.supervisor_record(gone, started=1))
    state, said = cancel(run)
    assert (state, said.startswith("had ended already: its supervisor is gone")) == (State.LOST, True)
    assert json.loads(run.status_file.read_text())["state"] == "RUNNING"


@pytest.mark.parametrize("asked", [True, False])
def test_a_job_that_died_of_the_cancel_before_anybody_listened_is_cancelled(tmp_path, asked):
    run = samples.run_dir(tmp_path, backend="slurm")
    write_json(run.slurm_file, {"job_id": "7", "submitted": time.time() - 20})
    if asked:
        run.cancel_file.touch()
    info = JobInfo("7", "7", JobState.FAILED, "FAILED", signal=15, ended=time.time() - 10)
    status = current_status(run, Answer({"7": info}, time.time(), ""))
    assert status["state"] is (State.CANCELLED if asked else State.FAILED)
    assert ("killed by signal 15" in status["reason"]) is not asked
    assert run.verdict()["state"] == status["state"]
