"""Who is told what of a run, and when; what happens where nobody can be reached."""

from __future__ import annotations

import json
import sys
import time

import pytest

from orchestrator.monitor.status import current_status, events
from orchestrator.notify.later import tell_of_end
from orchestrator.notify.message import duration
from orchestrator.notify.notifier import Notifier, start_notifying
from orchestrator.notify.occasions import Occasions, hang_words, is_wanted, of_end
from orchestrator.notify.store import write_values
from orchestrator.plan import NotifyPlan
from orchestrator.rundir import write_json, write_text
from orchestrator.states import State
from tests import samples
from tests.receivers import Web, served

HANG = {
    "event": "hang",
    "time": 100.0,
    "ranks": [3],
    "waiting": [0, 1, 2],
    "hosts": ["node2"],
    "silent": 130.0,
    "where": {"3": "train.py:57 readline"},
}


@pytest.fixture
def web():
    with served(Web()) as server:
        yield server


def told_run(folder, url: str, on: tuple[str, ...] = ("start", "hang", "end"), **changes):
    """Make a run that tells a webhook, as submit leaves it."""
    plans = (NotifyPlan(on, "webhook", (url + "/${TOKEN}",), ("TOKEN",)),)
    run = samples.run_dir(folder, state=State.RUNNING, notify=plans, **changes)
    write_values(run, {"TOKEN": "t"})
    return run


def end(run, state: State, summary: str) -> None:
    run.write_verdict({"state": state, "summary": summary, "started": 10.0, "ended": 52.0})


# -- which occasions ------------------------------------------------------------------------------


def test_the_first_start_is_a_start_and_the_others_say_why_again():
    occasions = Occasions()
    told = [
        occasions.of(event)
        for event in (
            {"event": "start"},
            {"event": "rank_start", "rank": 0},
            {"event": "requeue", "reason": "node-3 was lost"},
            {"event": "start"},
        )
    ]
    assert told == [("start", ""), None, None, ("restart", "attempt 2: node-3 was lost")]


def test_hangs_that_come_and_go_are_one_message_in_ten_minutes_and_twenty_in_all():
    occasions = Occasions()
    assert [bool(occasions.of(HANG | {"time": float(at)})) for at in (0, 300, 599, 600, 601)] == [
        *(True, False, False, True, False)
    ]
    told = [occasions.of(HANG | {"time": 1000.0 * number}) for number in range(2, 100)]
    assert sum(map(bool, told)) == 18


def test_a_slow_host_is_told_once_in_six_hours_and_a_fault_once_in_one():
    occasions = Occasions()
    slow = {
        "event": "straggler",
        "host": "a",
        "what": "step_time",
        "words": "a step takes 1.3 s, elsewhere 1 s",
    }
    fault = {
        "event": "gpu_fault",
        "host": "a",
        "gpu": 5,
        "what": "xid",
        "code": 79,
        "text": "fell off the bus",
    }
    first = occasions.of(slow | {"time": 0.0})
    assert first is not None
    assert (first[0], "a step takes 1.3 s" in first[1]) == ("straggler", True)
    assert [
        bool(occasions.of(slow | {"time": 3600.0 * at, "host": host}))
        for at, host in ((1, "a"), (1, "b"), (7, "a"))
    ] == [*(False, True, True)]
    told = occasions.of(fault | {"time": 0.0})
    assert told is not None
    assert (told[0], "79" in told[1]) == ("fault", True)
    assert occasions.of({"event": "oom_kill", "host": "a", "text": "python", "time": 60.0}) is None
    assert occasions.of(fault | {"host": "b", "code": 31, "time": 0.0}) is None  # the script's own
    assert occasions.of(fault | {"host": "b", "time": 1.0}) is not None


def test_a_hang_says_who_where_and_who_waits():
    assert hang_words(HANG) == (
        "rank 3 (in train.py:57 readline) on node2 without a sign of life for 2 min 10 s; 3 ranks wait"
    )
    many = HANG | {"ranks": list(range(9)), "hosts": list("abcde"), "where": {}, "waiting": []}
    assert hang_words(many) == (
        "rank 0, rank 1, rank 2, rank 3, 5 more on a, b, c, d, … without a sign of life for 2 min 10 s"
    )
    assert hang_words({"event": "hang"}) == "the run without a sign of life"


@pytest.mark.parametrize("state", list(State))
def test_a_failure_is_an_end_too_but_not_the_other_way_round(state):
    occasion = of_end(state)
    assert (occasion == "end") == (state in (State.SUCCEEDED, State.CANCELLED))
    assert is_wanted(("end",), occasion)
    assert is_wanted(("failure",), occasion) == (occasion == "failure")
    assert not is_wanted(("hang", "start"), occasion)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (190, "3 min 10 s"),
        (7980, "2 h 13 min"),
        (86400, "1 d"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration(seconds) == words


# -- the notifier ---------------------------------------------------------------------------------


def test_a_run_that_tells_nobody_costs_no_thread(tmp_path):
    run = samples.run_dir(tmp_path)
    assert start_notifying(run, run.plan()) is None


def test_start_hang_and_end_are_told_once_each(tmp_path, web):
    run = told_run(tmp_path, web.url)
    notifier = start_notifying(run, run.plan())
    for event in ({"event": "start"}, HANG, {"event": "checkpoint"}):
        run.add_event(**event)
    line = {"time": 1.0, "kind": "step", "rank": 0, "step": 7, "loss": 2.5, "attempt": 1}
    run.metrics_file.write_text(json.dumps(line) + "\n")
    end(run, State.FAILED, "rank 3 failed")
    write_json(run.diagnosis_file, {"summary": "rank 3 ran out of memory", "advice": ["a smaller batch"]})
    notifier.finish(120)
    assert [(path, body["event"]) for path, body in web.got] == [
        ("/t", "start"),
        ("/t", "hang"),
        ("/t", "failure"),
    ]
    last = web.got[-1][1]
    assert (last["reason"], last["step"], last["loss"]) == ("rank 3 ran out of memory", 7, 2.5)
    assert last["advice"] == ["a smaller batch"]
    told = [event for event in events(run) if event["event"] == "notified"]
    assert [(event["what"], event["ok"]) for event in told] == [
        ("start", True),
        ("hang", True),
        ("failure", True),
    ]
    assert {event["to"] for event in told} == {f"webhook {web.url}/${{TOKEN}}"}
    assert not run.notify_file.exists()


def test_another_supervisor_does_not_tell_again_what_was_told(tmp_path, web):
    run = told_run(tmp_path, web.url, on=("start", "restart"))
    run.add_event("start")
    first = start_notifying(run, run.plan())
    first.pause(120)
    run.add_event("requeue", reason="a host was lost")
    run.add_event("start")
    assert run.notify_file.exists()
    second = Notifier(run, run.plan())  # it was away while those were written, and so was everybody else
    second.start()
    run.add_event("start")
    second.finish(120)
    assert [body["event"] for _, body in web.got] == ["restart"]
    assert "attempt 3: a host was lost" in web.got[0][1]["text"]


def test_a_server_that_never_answers_costs_the_end_no_more_than_its_bound(tmp_path, web):
    run = told_run(tmp_path, web.url, on=("end",))
    web.answers = [0] * 9
    notifier = start_notifying(run, run.plan())
    end(run, State.SUCCEEDED, "all well")
    notifier.finish(0.5)
    assert notifier._channels[0].is_alive()  # it waits for the answer, and nobody for it
    [told] = [event for event in events(run) if event["event"] == "notified"]
    assert (told["ok"], told["why"]) == (False, "it took too long, and nothing waits for it any more")


def test_a_try_that_fails_is_followed_by_another(tmp_path, web, monkeypatch):
    monkeypatch.setattr("orchestrator.notify.channel._PAUSES", (0.01, 0.01))
    run = told_run(tmp_path, web.url, on=("end",))
    web.answers = [503, 500]
    notifier = start_notifying(run, run.plan())
    notifier._tell("end", "")
    samples_told = _wait_for(lambda: [e for e in events(run) if e["event"] == "notified"])
    assert len(web.got) == 3
    assert samples_told[0]["ok"]
    notifier.pause()


def _wait_for(look):
    deadline = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


# -- runs that end without a supervisor -------------------------------------------------------------


def test_who_finds_a_run_lost_has_its_end_told_once(tmp_path, web, spawn):
    gone = spawn("true")
    gone.wait()
    run = told_run(tmp_path, web.url, on=("failure",), supervisor_python=sys.executable)
    supervisor = samples.supervisor_record(gone.pid, started=1)
    write_json(run.record_file, {"run_id": run.run_id, "supervisor": supervisor, "started": time.time() - 5})
    for _ in range(3):
        assert current_status(run)["state"] is State.LOST
    told = _wait_for(lambda: [e for e in events(run) if e["event"] == "notified"])
    assert [body["state"] for _, body in web.got] == ["LOST"]
    assert len(told) == 1
    assert not run.notify_file.exists()


def test_nobody_is_told_of_a_run_that_another_supervisor_may_take_over(tmp_path, web, spawn):
    gone = spawn("true")
    gone.wait()
    run = told_run(tmp_path, web.url)
    run.attempt(1).control_file.write_text("{}")
    write_json(run.record_file, {"supervisor": samples.supervisor_record(gone.pid, started=1)})
    assert current_status(run)["state"] is State.LOST
    assert run.notify_file.exists()


def test_a_plan_of_another_version_stops_nobody_from_asking(tmp_path, web):
    run = told_run(tmp_path, web.url)
    write_text(run.plan_file, "{}")
    tell_of_end(run)
    assert not run.notify_file.exists()
