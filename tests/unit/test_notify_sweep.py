"""A sweep is told of as one: its start and its end once, its points' failures as they come."""

from __future__ import annotations

import json
import sys
import time

import pytest

from orchestrator.monitor.status import current_status, events
from orchestrator.notify.notifier import start_notifying
from orchestrator.notify.store import write_values
from orchestrator.plan import NotifyPlan
from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.receivers import Web, served


@pytest.fixture
def web():
    with served(Web()) as server:
        yield server


@pytest.fixture
def points(tmp_path, web):
    """Return the three points of a sweep, which tell a web server of start, failure and end."""
    return sweep(tmp_path / "lr-sweep", web, ("start", "failure", "end"))


def sweep(folder, web, on):
    plans = (NotifyPlan(on, "webhook", (web.url,)),)
    found = [{"index": index, "label": f"lr={index}"} for index in range(3)]
    runs = []
    for point in found:
        name = f"lr-sweep.{point['index']}"
        run = samples.run_dir(
            folder, name, State.RUNNING, notify=plans, supervisor_python=sys.executable, name="lr-sweep"
        )
        began = time.time() - 25.5 * 3600  # half an hour from where it would be told otherwise
        write_json(run.record_file, run.record() | {"sweep": "lr-sweep", "started": began})
        write_values(run, {})
        runs.append(run)
    write_json(folder / "sweep.json", {"name": "lr-sweep", "points": found})
    return runs


def end(run, state=State.SUCCEEDED, summary="all well", loss=None):
    """Let a point run, and end so; its supervisor tells of it."""
    notifier = start_notifying(run, run.plan())
    run.add_event("start")
    if loss is not None:
        line = {"time": 1.0, "kind": "step", "rank": 0, "step": 7, "loss": loss, "attempt": 1}
        run.metrics_file.write_text(json.dumps(line) + "\n")
    run.write_verdict({"state": state, "summary": summary, "started": 10.0, "ended": 52.0})
    notifier.finish()


def test_start_and_end_are_told_once_and_a_points_failure_at_once(points, web):
    end(points[0], loss=2.5)
    end(points[2], State.FAILED, "rank 3 failed")
    end(points[1], loss=2.25)
    told = [(body["event"], body["run_id"], body["state"]) for _, body in web.got]
    assert told == [
        ("start", "lr-sweep", "RUNNING"),
        ("failure", "lr-sweep.2", "FAILED"),
        ("end", "lr-sweep", "FAILED"),
    ]
    last = web.got[-1][1]
    assert last["subject"] == "lr-sweep FAILED after 1 d 1 h"
    assert last["text"].splitlines()[1:6] == [
        "2 SUCCEEDED, 1 FAILED",
        "lowest last loss 2.25: lr-sweep.1 lr=1",
        "lr-sweep.2 lr=2: FAILED: rank 3 failed",
        "lr-sweep.0 lr=0: SUCCEEDED, step 7, loss 2.5",
        "lr-sweep.1 lr=1: SUCCEEDED, step 7, loss 2.25",
    ]
    assert [(point["state"], point.get("loss")) for point in last["points"]] == [
        *(("SUCCEEDED", 2.5), ("SUCCEEDED", 2.25), ("FAILED", None)),
    ]
    assert [e["what"] for run in points for e in events(run) if e["event"] == "notified"] == [
        *("start", "end", "failure"),
    ]


def test_who_wants_the_end_alone_gets_one_message(tmp_path, web):
    for run in sweep(tmp_path / "lr-sweep", web, ("end",)):
        end(run, State.FAILED, "it failed")
    assert [(body["event"], body["run_id"]) for _, body in web.got] == [("end", "lr-sweep")]


def test_a_sweep_whose_last_point_was_cancelled_before_its_turn_or_is_lost_ends_too(points, web, spawn):
    points[0].write_verdict({"state": "CANCELLED", "summary": "before its turn", "ended": 1.0})
    gone = spawn("true")
    gone.wait()
    end(points[1])
    assert [body["event"] for _, body in web.got] == ["start"]
    supervisor = samples.supervisor_record(gone.pid, started=1)
    write_json(points[2].record_file, points[2].record() | {"supervisor": supervisor})
    assert current_status(points[2])["state"] is State.LOST
    deadline = time.monotonic() + 120
    while len(web.got) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {(body["event"], body["state"]) for _, body in web.got[1:]} == {
        ("failure", "LOST"),
        ("end", "LOST"),
    }


def test_a_run_beside_a_sweep_is_none_of_its_points(points, tmp_path, web):
    plans = (NotifyPlan(("end",), "webhook", (web.url,)),)
    run = samples.run_dir(tmp_path / "lr-sweep", "other", State.RUNNING, notify=plans)
    end(run)
    assert [body["run_id"] for _, body in web.got] == ["other"]
