from __future__ import annotations

import json
import signal

import pytest

from orchestrator.states import State
from orchestrator.verdict.document import roles, to_json
from orchestrator.verdict.evidence import HostEnd, RankEnd, adjusted
from orchestrator.verdict.judge import judge
from tests.evidence import KILL, LOST, SEGV, TERM, decide, host, lost, named, rank, suspects, told

# -- one cause, and its victims -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cause",
    [
        rank(0, message="ValueError: loss is nan"),
        rank(0, exit_code=3),
        rank(0, exit_code=255, message="error: no space left on device"),
        rank(0, signal=SEGV),
        rank(0, signal=KILL),
        rank(0, signal=KILL, message="W0000 heartbeat: Broken pipe"),  # OOM: the last words are no reason
        rank(0, signal=int(signal.SIGABRT), message="free(): invalid pointer"),
        rank(0, exit_code=137),
        rank(0, signal=TERM),  # someone's `kill`
    ],
    ids=str,
)
def test_a_rank_that_failed_by_itself_is_named_among_its_victims(cause):
    victims = [lost(1), told(2), told(3, signal=KILL), told(4, exit_code=143), told(5, exit_code=1)]
    others = [lost(6, "b"), told(7, "b")]
    assert named(host(cause, *victims), host(*others, name="b")) == 0


@pytest.mark.parametrize("message", LOST)
def test_a_lost_connection_is_never_the_cause_when_another_failed_by_itself(message):
    early = [lost(0, "a", at=5.0, message=message), lost(1, "a", at=5.0, message=message)]
    assert named(host(*early), host(rank(2, "b", message="ValueError: x"), name="b")) == 2


@pytest.mark.parametrize("message", LOST)
def test_ranks_that_all_lost_a_peer_leave_it_undetermined(message):
    hosts = [host(lost(0, message=message), told(1)), host(lost(2, "b", message=message), name="b")]
    assert suspects(*hosts) == {0, 2}


def test_the_earlier_of_two_on_one_host_is_named_however_bad_its_clock():
    ends = [rank(0, at=10.02, uncertainty=60.0), rank(1, at=10.0, uncertainty=60.0)]
    assert named(host(*ends)) == 1


def test_two_on_one_host_within_the_time_of_a_record_are_undetermined():
    assert suspects(host(rank(0, at=10.0), rank(1, at=10.004))) == {0, 1}


@pytest.mark.parametrize(("gap", "expected"), [(0.05, None), (0.15, 0)])
def test_two_on_different_hosts_are_told_apart_as_far_as_their_clocks_allow(gap, expected):
    first, second = rank(0, "a", 10.0, uncertainty=0.04), rank(1, "b", 10.0 + gap, uncertainty=0.04)
    hosts = (host(first), host(second, name="b"))
    assert named(*hosts) == expected
    assert expected is not None or suspects(*hosts) == {0, 1}


def test_a_candidate_is_only_who_nobody_certainly_preceded():
    vague = rank(0, "a", 10.0, uncertainty=5)
    after_vague = rank(1, "a", 10.5, uncertainty=5)  # the same clock as rank 0: later for certain
    exact, late = rank(2, "b", 12.0), rank(3, "c", 14.0)  # exact clocks: rank 3 is later for certain
    hosts = (host(vague, after_vague), host(exact, name="b"), host(late, name="c"))
    assert suspects(*hosts) == {0, 2}


# -- ranks that were told to end ----------------------------------------------------------------------


def test_a_rank_that_raised_long_before_it_was_told_is_the_cause_although_it_was_slow_to_end():
    slow = told(0, at=30.0, exit_code=1, message="ValueError: x", raised_time=10.0)
    assert named(host(slow, told(1)), host(lost(2, "b", at=20.0), name="b")) == 0
    killed = told(0, at=30.0, signal=KILL, message="ValueError: x", raised_time=10.0)
    assert named(host(killed, told(1)), host(lost(2, "b", at=20.0), name="b")) == 0


def test_a_rank_that_raised_within_the_second_of_its_sigterm_may_have_been_told_first():
    assert suspects(host(told(0, at=11.0, exit_code=1, message="ValueError: x", raised_time=10.0))) == {0}


def test_the_time_of_the_exception_counts_and_not_that_of_the_exit():
    slow = rank(0, at=40.0, message="ValueError: x", raised_time=10.0)
    quick = rank(1, at=13.0, message="RuntimeError: y", raised_time=12.0)
    assert named(host(slow, quick)) == 0
    assert named(host(slow), host(rank(1, "b", at=13.0), name="b")) == 0


def test_exceptions_in_one_second_with_slow_ends_are_undetermined():
    ends = [rank(0, at=40.0, raised_time=10.0), rank(1, at=30.0, raised_time=10.0)]
    assert suspects(host(*ends)) == {0, 1}


def test_the_launchers_own_sigterm_makes_no_cause():
    """DeepSpeed's launcher sends SIGTERM to the rank itself before its shim, which then knows of none."""
    swept = rank(1, at=10.4, signal=TERM)
    assert suspects(host(lost(0, at=10.1), swept)) == {0}
    gone = host(name="b", code=None, failure="lost: no word from it for 30 s", time=40.0, since=9.0)
    assert named(host(lost(0, at=10.1), swept), gone) == "b"


def test_a_rank_that_someone_ended_with_sigterm_is_the_cause():
    assert named(host(rank(0, at=10.0, signal=TERM), lost(1, at=10.2))) == 0


# -- the verdict itself -------------------------------------------------------------------------------


def test_a_run_is_well_only_when_every_rank_and_launcher_is():
    good = host(rank(0, exit_code=0), code=0)
    verdict = judge(State.SUCCEEDED, "", (good, host(rank(1, "b", exit_code=0), name="b", code=0)))
    assert (verdict.state, verdict.summary) == (State.SUCCEEDED, "all 2 ranks on 2 hosts ended with 0")
    assert (verdict.undetermined, verdict.candidates) == (False, ())
    for bad in (host(rank(1, exit_code=0), code=1), host(rank(1, exit_code=1), code=0), host(code=None)):
        assert judge(State.SUCCEEDED, "", (good, bad)).state is State.FAILED


def test_one_rank_is_not_called_many():
    verdict = judge(State.SUCCEEDED, "", (host(rank(0, exit_code=0), code=0),))
    assert verdict.summary == "the one rank on 1 host ended with 0"


@pytest.mark.parametrize("ending", [State.CANCELLED, State.TIMEOUT])
def test_who_ended_a_run_on_purpose_is_the_whole_verdict(ending):
    verdict = judge(ending, "someone said so", (host(rank(0, signal=SEGV), told(1)),))
    assert (verdict.state, verdict.summary) == (ending, "someone said so")
    assert (verdict.first_failure, verdict.undetermined) == (None, False)
    assert roles(verdict) == {0: "failed", 1: "stopped"}


def test_a_failure_without_evidence_keeps_the_reason():
    verdict = decide(host(rank(0, at=None), code=None), reason="the supervisor ended early")
    assert (verdict.summary, verdict.candidates) == ("the supervisor ended early", ())
    assert roles(verdict) == {0: "unknown"}


@pytest.mark.parametrize(
    ("message", "in_use"),
    [
        ("RuntimeError: The server socket has failed to listen: port: 29500, EADDRINUSE", True),
        ("OSError: [Errno 98] Address already in use", True),
        ("ConnectionError: Tried to launch … on port `29500`, but another process is utilizing it.", True),
        ("ValueError: loss is nan", False),
    ],
)
def test_a_taken_master_port_is_told_apart_wherever_it_is_said(message, in_use):
    assert decide(host(rank(0, message=message))).port_in_use == in_use
    by_launcher = host(launcher_told=False, launcher_message=message, time=1.0)
    assert decide(by_launcher).port_in_use == in_use


def test_the_sentences_say_who_how_and_how_many():
    one = decide(host(rank(3, signal=SEGV, message="oops"), told(1), told(2)))
    assert one.summary == (
        "rank 3 (local rank 0) on a failed first, killed by SIGSEGV: oops; "
        "2 other ranks were stopped because of it"
    )
    assert decide(host(rank(0, signal=99))).summary.startswith(
        "rank 0 (local rank 0) on a failed first, killed by signal 99"
    )
    many = decide(host(*(rank(number, message="same") for number in range(9))))
    assert many.summary.startswith(
        "undetermined: the evidence cannot tell which failed first of rank 0 on a,"
    )
    assert many.summary.endswith("rank 7 on a and 1 more: same")


def test_roles_say_what_each_rank_was():
    ends = [
        rank(0),
        lost(1),
        told(2),
        rank(3, exit_code=0),
        RankEnd(4, 0, "a", None, None, None, started=False),
    ]
    verdict = decide(host(*ends, rank(5, at=None)))
    expected = {0: "cause", 1: "failed", 2: "victim", 3: "ok", 4: "never started", 5: "unknown"}
    assert roles(verdict) == expected
    assert roles(decide(host(rank(0), rank(1), told(2)))) == {0: "candidate", 1: "candidate", 2: "victim"}


def test_the_file_holds_it_all_with_the_log_to_read():
    odd = HostEnd("fd00::1", (rank(3, "fd00::1", message="bad"),), launcher_code=1)
    lost_host = HostEnd("b", (), failure="gone", time=99.0)
    written = json.loads(json.dumps(to_json(decide(odd, lost_host), "job-abcd", 1.5, 9.5)))
    assert {key: written[key] for key in ("run_id", "state", "started", "ended", "undetermined")} == {
        "run_id": "job-abcd",
        "state": "FAILED",
        "started": 1.5,
        "ended": 9.5,
        "undetermined": True,
    }
    assert {cause["log"] for cause in written["candidates"]} == {"fd00%3A%3A1.rank3.err", "b.log"}
    assert [entry["state"] for entry in written["hosts"]] == ["ended", "failed"]
    assert written["hosts"][0]["ranks"][0] == {
        "rank": 3,
        "local_rank": 0,
        "exit_code": 1,
        "signal": None,
        "role": "candidate",
        "time": 10.0,
        "message": "bad",
    }


def test_a_hosts_times_are_moved_to_the_supervisors_clock():
    moved = adjusted(told(0, at=100.0, exit_code=1, raised_time=97.0), offset=90.0, uncertainty=0.25)
    assert (moved.time, moved.term_time, moved.raised_time, moved.uncertainty) == (10.0, 9.5, 7.0, 0.25)
    assert adjusted(rank(0, at=None), 90.0, 0.1).time is None
