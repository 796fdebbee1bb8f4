from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.supervisor.ending import tail_of
from orchestrator.supervisor.host_state import HostState
from tests import samples


def state(**known) -> HostState:
    """Return what is known of node2, which has ranks 2 and 3."""
    return HostState(samples.plan().hosts[1], **known)


def ended(rank: int, **how) -> dict:
    return {"rank": rank, "event": "exit", "exit_code": 0, "signal": None, "time": 1000.0, **how}


def test_clocks_are_compared_by_the_quickest_answer():
    host = state()
    host.take_pong(sent=100.0, host_time=1100.5, now=101.0)
    assert (host.offset, host.uncertainty) == (1000.0, 0.5)
    host.take_pong(sent=200.0, host_time=1203.0, now=204.0)  # slower: tells less
    assert (host.offset, host.uncertainty) == (1000.0, 0.5)
    host.take_pong(sent=300.0, host_time=1300.3, now=300.2)
    assert (round(host.offset, 6), round(host.uncertainty, 6)) == (1000.2, 0.1)


def test_what_was_learnt_of_a_clock_grows_old():
    host = state()
    assert host.clock is None
    assert host.take_pong(sent=100.0, host_time=1100.0, now=100.2)
    assert host.clock == {"offset": 999.9, "uncertainty": 0.1}
    assert not host.take_pong(sent=1000.0, host_time=2000.3, now=1000.4)
    assert host.take_pong(sent=100_000.0, host_time=101_005.3, now=100_000.6)  # a day later, 5 s apart
    assert (host.clock["offset"], host.clock["uncertainty"]) == (1005.0, 0.3)


@given(st.floats(-1e6, 1e6), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1))
def test_the_true_offset_is_always_within_the_uncertainty(offset, ways):
    host, now = state(), 1e6
    for there, back in ways:
        host.take_pong(now, now + there + offset, now + there + back)
        now += there + back
    assert abs(host.offset - offset) <= host.uncertainty + 1e-6


def test_before_any_answer_nothing_is_sure_of_the_clock():
    assert state().evidence("").uncertainty >= 60


def test_the_first_thing_that_went_wrong_stays():
    began = time.monotonic()
    host = state(contact=began - 30)
    host.fail("lost")
    took = time.monotonic() - began
    before = (host.failure, host.failure_time, host.failure_since)
    host.fail("later")
    assert (host.failure, host.failure_time, host.failure_since) == before
    assert before[0] == "lost"
    assert 30 <= before[1] - before[2] < 40 + took  # not before its last word; a little for that to arrive


def test_a_host_has_ended_well_when_its_launcher_and_every_rank_have():
    ranks = {2: ended(2), 3: ended(3)}
    assert state(launcher_code=0, ranks=ranks).finished_well
    assert not state(launcher_code=None, ranks=ranks).finished_well
    assert not state(launcher_code=1, ranks=ranks).finished_well
    assert not state(launcher_code=0, ranks={2: ended(2)}).finished_well
    assert not state(launcher_code=0, ranks={2: ended(2), 3: ended(3, exit_code=1)}).finished_well
    assert not state(launcher_code=0, ranks={2: ended(2), 3: {"event": "start", "rank": 3}}).finished_well


def test_the_evidence_is_on_our_clock_and_holds_every_rank():
    host = state(
        ranks={2: ended(2, exit_code=None, signal=9, term_time=990.0)}, offset=900.0, uncertainty=0.25
    )
    host.launcher_code, host.launcher_time, host.launcher_told = 1, 1001.0, True
    end = host.evidence("last words")
    killed, missing = end.ranks
    assert (killed.rank, killed.local_rank, killed.host) == (2, 0, "node2")
    assert (killed.signal, killed.time, killed.term_time, killed.uncertainty) == (9, 100.0, 90.0, 0.25)
    assert (missing.rank, missing.started, missing.ended) == (3, False, False)
    assert (end.launcher_code, end.launcher_told, end.launcher_message) == (1, True, "last words")
    assert (end.time, end.failure, end.since) == (101.0, "", None)


def test_a_rank_that_still_runs_has_no_end():
    running = {"rank": 2, "event": "start", "time": 5.0, "pid": 7, "term_time": None}
    end = state(ranks={2: running}).evidence("").ranks[0]
    assert (end.started, end.ended, end.time) == (True, False, None)


def test_a_failure_is_timed_by_our_own_clock():
    host = state(offset=1e6, launcher_time=5.0)
    host.fail("lost")
    end = host.evidence("")
    assert abs(end.time - time.time()) < 60
    assert end.since <= end.time


def test_the_last_words_of_a_log_are_the_launchers_and_not_the_agents(tmp_path):
    log = tmp_path / "node1.log"
    assert tail_of(log) == ""
    log.write_bytes(
        b"x" * 20_000 + b"\nImportError: caf\xe9\n[orchestrate 10:00:00] the launcher ended with 1\n"
    )
    assert tail_of(log) == "ImportError: caf\ufffd"
