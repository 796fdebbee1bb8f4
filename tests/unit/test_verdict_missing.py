"""Who failed first where ranks only miss another one, or end long after they raised."""

from __future__ import annotations

import json
import os
import time

import pytest

from orchestrator.agent.last_words import when_raised
from orchestrator.states import State
from orchestrator.verdict.evidence import RankEnd, adjusted
from orchestrator.verdict.judge import judge
from orchestrator.verdict.kept import evidence_document, evidence_from
from tests.evidence import decide, host, lost, named, rank, suspects, told

LATE = "RuntimeError: [Rank 0]: Rank 2 failed to pass monitoredBarrier in 4000 ms"
REACHED = "RuntimeError: Rank 1 successfully reached monitoredBarrier, but received errors from rank 0"
TIMED_OUT = (
    "RuntimeError: [gloo/unbound_buffer.cc:78] Timed out waiting 4000ms for recv operation to complete"
)
WATCHDOG = "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)"
HUB = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co'): Connection refused"


def test_a_rank_that_ended_with_0_before_the_others_lost_it_is_named():
    left = rank(2, "b", at=10.0, exit_code=0)
    verdict = decide(host(lost(0, at=12.0), lost(1, at=12.1)), host(left, lost(3, "b", at=12.0), name="b"))
    assert verdict.first_failure.rank == 2
    assert "it ended while the others still needed it" in verdict.summary


def test_one_that_may_have_ended_after_the_first_failure_is_not_accused():
    left = rank(2, "b", at=11.9, exit_code=0, uncertainty=0.5)
    assert suspects(host(lost(0, at=12.0), lost(1, at=12.1)), host(left, name="b")) == {0, 1}


def test_of_several_that_left_early_none_is_picked():
    early = [rank(2, "b", at=10.0, exit_code=0), rank(3, "b", at=10.0, exit_code=0)]
    assert suspects(host(lost(0, at=12.0)), host(*early, name="b")) == {2, 3}


def test_those_that_left_early_are_told_by_rank_whatever_the_order_of_the_hosts():
    first = host(rank(0, "a", at=10.0, exit_code=0), code=0)
    second = host(rank(3, "b", at=10.0, exit_code=0), name="b", code=0)
    failed = host(lost(6, "c", at=12.0), name="c")
    verdicts = decide(first, second, failed), decide(second, first, failed)
    assert [[one.rank for one in verdict.candidates] for verdict in verdicts] == [[0, 3], [0, 3]]


def test_a_rank_that_did_not_come_to_a_barrier_is_named_by_the_others():
    waiting = [rank(0, message=LATE), rank(1, at=10.2, message=REACHED)]
    assert named(host(*waiting), host(told(2, "b"), name="b")) == 2


@pytest.mark.parametrize("message", [TIMED_OUT, WATCHDOG])
def test_a_rank_that_waited_in_vain_is_no_cause(message):
    assert suspects(host(rank(0, message=message), told(1)), host(told(2, "b"), name="b")) == {0}


def test_a_service_that_refuses_is_no_lost_rank():
    assert named(host(rank(0, message=HUB), told(1))) == 0


def test_the_only_rank_that_failed_is_named_where_nobody_need_have_gone():
    assert named(host(rank(0, message="ConnectionRefusedError: Connection refused"), told(1))) == 0


def test_a_hung_rank_that_leaves_its_stack_when_it_is_told_is_a_victim():
    verdict = decide(host(told(0, signal=6), told(1), told(2)), reason="rank 0 hangs")
    assert (verdict.summary, verdict.candidates) == ("rank 0 hangs", ())


# -- when a rank raised -----------------------------------------------------------------------------


def raised(number: int, at: float, ended: float, where: str = "a", **more) -> RankEnd:
    return rank(number, where, ended, message="ValueError: x", said_time=at, **more)


def test_who_raised_first_is_the_cause_although_it_ended_last():
    assert named(host(raised(0, 10.0, 14.0), raised(1, 10.5, 12.0))) == 0
    assert named(host(raised(0, 10.0, 14.0)), host(raised(1, 10.5, 12.0, "b"), name="b")) == 0


def test_who_raised_before_it_was_told_failed_by_itself():
    slow = raised(0, 10.0, 14.0, term_time=12.0)
    assert named(host(slow, raised(1, 10.5, 11.9))) == 0
    after = raised(0, 12.1, 14.0, term_time=12.0)
    assert named(host(after, raised(1, 10.5, 11.9))) == 1


def test_who_raised_first_but_was_killed_while_it_ended_is_still_the_cause():
    killed = raised(0, 10.0, 12.5, term_time=12.0, signal=15)
    assert named(host(killed, raised(1, 10.5, 11.9))) == 0


def test_two_that_raised_within_the_files_clock_are_undetermined():
    assert suspects(host(raised(0, 10.0, 14.0), raised(1, 10.008, 12.0))) == {0, 1}


def test_the_time_of_the_first_failure_is_that_of_the_exception():
    assert decide(host(raised(0, 10.0, 14.0))).first_failure.time == 10.0
    assert adjusted(raised(0, 100.0, 104.0), offset=90.0, uncertainty=0.1).said_time == 10.0


@pytest.fixture
def err(tmp_path):
    path = tmp_path / "rank.err"
    path.write_text("Traceback (most recent call last):\n  x\nValueError: y\n")
    return path


def asked(err, text=None, *, by_signal=False):
    text = err.read_text() if text is None else text
    return when_raised(text, str(err), str(err.with_name("beside")), time.time(), by_signal)


def test_the_time_of_the_last_words_is_told_for_exceptions_alone(err):
    assert asked(err) == err.stat().st_mtime
    assert asked(err, "no exception\n") is None


def test_words_of_long_ago_or_of_the_future_tell_nothing(err):
    for off in (-60, 60):
        os.utime(err, (time.time() + off, time.time() + off))
        assert asked(err) is None


def test_a_disk_that_cannot_be_written_tells_nothing(err):
    beside = str(err.with_name("no") / "such")
    assert when_raised(err.read_text(), str(err), beside, time.time(), by_signal=False) is None


def test_of_a_rank_that_was_killed_only_an_exception_that_nobody_caught_counts(err):
    assert asked(err, by_signal=True) is None
    err.write_text("".join(f"[rank2]: {line}\n" for line in err.read_text().splitlines()))
    assert asked(err, by_signal=True) == err.stat().st_mtime


# -- kept evidence ----------------------------------------------------------------------------------


def test_a_verdict_can_be_judged_again_from_the_kept_evidence():
    hosts = (
        host(raised(0, 10.0, 14.0), lost(1), told(2)),
        host(told(3, "b"), name="b", failure="lost", since=9.0),
    )
    document = json.loads(json.dumps(evidence_document(State.FAILED, "why", hosts)))
    assert evidence_from(document) == (State.FAILED, "why", hosts)
    assert judge(*evidence_from(document)) == judge(State.FAILED, "why", hosts)
