"""Hosts and training launchers that fail, and what the verdict makes of their ranks."""

from __future__ import annotations

from orchestrator.verdict.document import roles
from orchestrator.verdict.evidence import HostEnd, RankEnd
from tests.evidence import KILL, SEGV, decide, host, lost, named, rank, suspects, told


def test_a_host_that_broke_is_named_before_ranks_that_lost_their_peer():
    gone = host(rank(0, at=None), code=None, failure="lost: no word from it for 31 s", time=41.0, since=9.5)
    verdict = decide(gone, host(lost(1, "b"), told(2, "b"), name="b"))
    assert (verdict.first_failure.host, verdict.first_failure.rank) == ("a", None)
    assert verdict.summary == (
        "host a failed first: lost: no word from it for 31 s; 1 other rank was stopped because of it"
    )


def test_a_host_that_was_heard_after_the_failure_did_not_cause_it():
    late = host(name="b", code=None, failure="out of reach at the end", time=60.0, since=12.0)
    assert named(host(rank(0, at=10.0)), late) == 0
    assert suspects(host(lost(0, at=10.0)), late) == {0}


def test_a_rank_that_failed_after_a_host_had_broken_is_not_named():
    early = host(name="b", code=None, failure="its agent was killed", time=9.0, since=8.0)
    assert named(host(rank(0, at=10.0, message="RuntimeError: communicator was aborted")), early) == "b"


def test_a_rank_that_failed_while_a_host_was_silent_may_be_the_first_or_not():
    silent = host(name="b", code=None, failure="lost: no word from it for 30 s", time=38.0, since=8.0)
    assert suspects(host(rank(0, at=10.0, message="RuntimeError: aborted")), silent) == {0, "b"}


def test_a_host_that_told_of_its_own_ranks_failure_was_still_there():
    broken = host(rank(0, at=10.0, signal=SEGV), code=None, failure="lost", time=40.0, since=9.0)
    assert named(broken, host(lost(1, "b"), name="b")) == 0


def test_hosts_that_broke_together_are_all_candidates_and_a_clearly_first_one_is_named():
    def broke(name: str, at: float) -> HostEnd:
        running = rank(ord(name), name, None)
        return host(running, name=name, code=None, failure="lost", time=at, uncertainty=0.1)

    assert suspects(broke("b", 10.0), broke("a", 10.5), broke("c", 90.0)) == {"a", "b", "c"}
    assert named(broke("b", 10.0), broke("a", 12.0), broke("c", 90.0)) == "b"


def test_what_keeps_hosts_from_starting_is_told_together():
    def unfit(name: str, failure: str) -> HostEnd:
        waiting = RankEnd(ord(name), 0, name, None, None, None, started=False)
        return host(waiting, name=name, code=None, failure=failure, time=float(ord(name)))

    verdict = decide(unfit("a", "no route"), unfit("b", ""), unfit("c", "no python"), unfit("d", "no route"))
    assert verdict.summary == "no rank was started; a, d: no route; c: no python"
    assert verdict.first_failure.host == "a"
    assert [cause.host for cause in verdict.candidates] == ["a", "c", "d"]
    assert set(roles(verdict).values()) == {"never started"}


def test_a_host_that_went_away_later_did_not_keep_the_launcher_of_another_from_starting():
    broken = host(launcher_told=False, launcher_message="ImportError: x", time=5.0, uncertainty=0.01)
    gone = host(name="b", code=None, failure="out of reach at the end", time=50.0, since=9.0)
    assert named(broken, gone) == "a"


def test_a_launcher_that_ended_before_its_ranks_started_is_named_with_its_words():
    waiting = RankEnd(0, 0, "a", None, None, None, started=False)
    broken = host(
        waiting,
        launcher_told=False,
        launcher_message="ImportError: no module named torch",
        time=5.0,
        uncertainty=0.01,
    )
    other = host(told(1, "b"), name="b", code=-15, time=6.0)
    verdict = decide(broken, other)
    assert verdict.summary.startswith(
        "host a failed first: the training launcher ended with 1: ImportError: no module named torch"
    )
    assert roles(verdict) == {0: "never started", 1: "victim"}


def test_a_killed_launcher_is_named_and_not_the_ranks_of_other_hosts_that_lost_theirs():
    killed = host(told(0), code=-KILL, launcher_told=False, time=9.9)
    first = decide(
        killed, host(lost(1, "b", at=10.0), name="b", launcher_told=False, time=11.0)
    ).first_failure
    assert (first.host, first.rank, first.signal, first.exit_code) == ("a", None, KILL, None)
    assert "the training launcher was killed by SIGKILL" in first.message


def test_a_launcher_that_ended_because_a_rank_did_is_never_the_cause():
    early = host(rank(0, at=10.0), launcher_told=False, time=1.0)
    assert named(early, host(told(1, "b"), name="b", time=1.0)) == 0
