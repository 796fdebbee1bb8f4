"""What holds for a verdict whatever the evidence is."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import judge
from tests.evidence import KILL, LOST, SEGV, TERM, rank

TIMES = st.floats(0, 20, allow_nan=False).map(lambda value: round(value, 3))


@st.composite
def rank_ends(draw, number: int, name: str, uncertainty: float) -> RankEnd:
    at = draw(st.none() | TIMES)
    if at is None:
        return rank(number, name, None)
    how = draw(st.sampled_from([{"exit_code": 0}, {"exit_code": 1}, {"exit_code": 143}, *SIGNALLED]))
    term_time = draw(st.none() | TIMES.map(lambda value: min(value, at)))
    message = draw(st.sampled_from(["", "ValueError: x", LOST[0]]))
    raised = draw(st.none() | st.integers(0, 20).map(lambda value: float(min(value, int(at)))))
    more = {"term_time": term_time, "message": message, "raised_time": raised, "uncertainty": uncertainty}
    return rank(number, name, at, **how, **more)


SIGNALLED = [{"signal": number} for number in (TERM, KILL, SEGV)]


def begun(hosts: tuple[HostEnd, ...]) -> bool:
    """Tell whether anything was started; before that, every unfit host is told in the order of the plan."""
    return any(host.ranks or host.launcher_code is not None for host in hosts)


@st.composite
def host_ends(draw) -> tuple[HostEnd, ...]:
    hosts = []
    for number in range(draw(st.integers(1, 4))):
        name, uncertainty = f"h{number}", draw(st.sampled_from([0.0, 0.01, 2.0]))
        first = 3 * number
        ranks = [draw(rank_ends(first + i, name, uncertainty)) for i in range(draw(st.integers(0, 3)))]
        failure = draw(st.sampled_from(["", "", "lost"]))
        time = draw(TIMES)
        since = draw(st.none() | TIMES.map(lambda value, time=time: min(value, time)))
        code, was_told = draw(st.sampled_from([(0, False), (1, False), (1, True), (None, False)]))
        more = {"launcher_told": was_told, "time": time, "uncertainty": uncertainty, "since": since}
        hosts.append(HostEnd(name, tuple(ranks), failure, code, **more))
    return tuple(hosts)


@given(host_ends())
def test_whoever_was_stopped_or_only_lost_its_peer_is_never_named(hosts):
    first = judge(State.FAILED, "", hosts).first_failure
    if first is None or first.rank is None:
        return
    end = next(end for host in hosts for end in host.ranks if end.rank == first.rank)
    if end.exit_code == 0:  # it left early, and those that failed can only have missed it
        return
    assert end.failed
    assert not end.lost_peer
    assert end.term_time is None or end.raised_time < end.term_time


@given(host_ends().filter(begun), st.randoms())
def test_the_order_of_the_hosts_changes_nothing(hosts, random):
    shuffled = list(hosts)
    random.shuffle(shuffled)
    one, other = judge(State.FAILED, "", hosts), judge(State.FAILED, "", tuple(shuffled))
    assert (one.first_failure, one.candidates, one.summary) == (
        other.first_failure,
        other.candidates,
        other.summary,
    )


@given(host_ends())
def test_nobody_who_failed_by_itself_certainly_before_the_named_rank_exists(hosts):
    first = judge(State.FAILED, "", hosts).first_failure
    if first is None or first.rank is None:
        return
    ends = {end.rank: end for host in hosts for end in host.ranks}
    cause = ends[first.rank]
    for end in ends.values():
        if end.failed_by_itself and end.signal != TERM and end.exit_code != 143:
            doubt = 0.0 if end.host == cause.host else end.uncertainty + cause.uncertainty
            assert end.span[1] + doubt >= cause.span[0]


@given(host_ends().filter(begun))
def test_a_named_failure_is_the_only_candidate_and_the_verdict_can_be_written(hosts):
    verdict = judge(State.FAILED, "", hosts)
    assert verdict.first_failure is None or verdict.candidates == (verdict.first_failure,)
    assert len(verdict.candidates) != 1 or verdict.first_failure or verdict.candidates[0].rank is not None
    assert json.loads(json.dumps(to_json(verdict, "r", None, 1.0)))["state"] == "FAILED"
