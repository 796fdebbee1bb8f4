"""Hangs and stragglers, from what is known of each rank and host."""

from __future__ import annotations

import pytest

from orchestrator.collector.hang import Hang, Rank, Silence, judge, patience, silence
from orchestrator.collector.intake import Facts, Seen
from orchestrator.collector.rules import Rules
from orchestrator.collector.samples import Sample
from orchestrator.collector.straggler import Host, Stragglers, gpus_of
from orchestrator.monitor.stacks import Place
from orchestrator.plan import MonitorPlan
from orchestrator.supervisor.watching import describe

NOW, AFTER = 10_000.0, 120.0
WAITS = Place("/x/train.py", 80, "step", waiting=True)
WAITS_ELSEWHERE = Place("/x/train.py", 95, "evaluate", waiting=True)
READS = Place("/x/data.py", 57, "readline", waiting=False)
SAVES = Place("/x/train.py", 99, "save", waiting=False)


def _ranks(*active: float, known: bool = True) -> list[Rank]:
    return [Rank(rank, f"node-{rank // 2}", NOW - ago, known, NOW) for rank, ago in enumerate(active)]


@pytest.mark.parametrize(
    ("after", "times", "stepped", "seconds"),
    [
        ("auto", [1.0] * 100, True, 120),
        ("auto", [60.0] * 100, True, 300),
        ("auto", [1.0] * 98 + [90.0] * 2, True, 450),
        ("auto", [], True, 120),
        ("auto", [], False, 600),  # importing, loading, compiling
        (30.0, [60.0], True, 30),
        (3.0, [60.0], True, 20),  # two measurements must have shown no CPU
        ("never", [], True, None),
    ],
)
def test_how_long_ranks_may_be_silent(after, times, stepped, seconds):
    assert patience(after, times, 10.0, stepped=stepped) == seconds


def test_the_silent_ones_are_told_longest_first():
    found = silence(_ranks(1, 200, 1, 300), NOW - 300, NOW, AFTER)
    assert found == Silence((3, 1), (0, 2), NOW - 300)


@pytest.mark.parametrize(
    ("ranks", "stepped"),
    [
        (_ranks(1, 1, 1), NOW - 900),  # everybody does something
        (_ranks(1, 200, 1), NOW - 5),  # a step was done: nobody waits
        (_ranks(1, 200, 1, known=False), NOW - 900),  # who knows what the unmeasured do
        ([Rank(0, "node-0", NOW - 200, known=True, measured=NOW - 100)], NOW - 900),  # silent for 100 s
        ([], 0.0),
    ],
)
def test_what_is_no_silence(ranks, stepped):
    assert silence(ranks, stepped, NOW, AFTER) is None


@pytest.mark.parametrize(
    ("silent", "others", "places", "hang"),
    [
        # gloo: all sleep; the stacks tell who waits
        ([0, 1, 2], [], {0: WAITS, 1: READS, 2: WAITS}, Hang((1,), (0, 2))),
        # NCCL: those who wait spin
        ([1], [0, 2], {0: WAITS, 1: READS, 2: WAITS}, Hang((1,), (0, 2))),
        ([1], [0, 2], {}, Hang((1,), (0, 2))),  # no stacks: few are silent, most spin
        # rank 0 is at work and the others wait for it
        ([1, 2, 3], [0], {0: SAVES, 1: WAITS, 2: WAITS, 3: WAITS}, None),
        ([1], [0, 2], {0: SAVES, 1: READS, 2: WAITS}, None),
        ([1, 2, 3], [0], {}, None),
        # all wait: one took another way to a collective, or nobody knows
        ([0, 1, 2], [], {0: WAITS, 1: WAITS_ELSEWHERE, 2: WAITS}, Hang((1,), (0, 2))),
        ([0, 1], [], {0: WAITS, 1: WAITS}, Hang((0, 1), ())),
        ([0, 1], [], {0: WAITS, 1: WAITS_ELSEWHERE}, Hang((0, 1), ())),
        ([0, 1], [], {}, Hang((0, 1), ())),
        # one gives no stack: it is the one that does not wait
        ([0, 1, 2], [], {0: WAITS, 1: None, 2: WAITS}, Hang((1,), (0, 2))),
    ],
)  # fmt: skip
def test_who_is_stuck(silent, others, places, hang):
    assert judge(silent, others, places) == hang


def test_a_hang_in_words():
    assert describe(Hang((1,), (0, 2)), ["node-0"], {1: READS}) == (
        "rank 1 on node-0 hangs at data.py:57 readline, while 2 others wait"
    )
    many = describe(Hang(tuple(range(20)), ()), ["node-0", "node-1"], {})
    assert many == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more on 2 hosts hang"


def test_a_silence_is_told_once_and_again_later_and_its_end():
    facts = Facts({0: Seen("a", NOW, NOW, 1.0, runs=True), 1: Seen("a", NOW, NOW, 0.0, runs=True)})
    facts.stepped = NOW
    rules = Rules(MonitorPlan(hang_after=20.0), 1.0)
    told = []
    for second in range(70):
        facts.ranks[0].active = NOW + second
        facts.ranks[0].sampled = facts.ranks[1].sampled = NOW + second
        if second == 60:
            facts.ranks[1].active = NOW + second
        told += [(second, event["event"], event.get("ranks")) for event in rules.look(facts, NOW + second)]
    assert told == [*((second, "hang", [1]) for second in (22, 32, 42, 52)), (60, "hang_over", None)]


def test_ranks_that_fall_silent_one_after_another_are_told_together():
    """Those that wait for the stuck one stop a moment before or after it, as measurements come."""
    facts = Facts({rank: Seen("a", NOW + rank, NOW, 0.0, runs=True) for rank in range(2)})
    facts.stepped = NOW
    rules = Rules(MonitorPlan(hang_after=20.0), 1.0)
    told = []
    for second in range(28):
        for seen in facts.ranks.values():
            seen.sampled = NOW + second
        told += [(event["ranks"], event["others"]) for event in rules.look(facts, NOW + second)]
    assert told == [([0, 1], [])]


def _hosts(**slow: Host) -> dict[str, Host]:
    return {f"node-{i}": Host(1980.0, "", 1.0, None) for i in range(4)} | slow


def test_a_host_whose_gpus_are_held_down_is_named_after_some_measurements():
    stragglers, slow = Stragglers(), {"node-2": Host(1200.0, "thermal", 1.0)}
    rounds = [list(stragglers.look(_hosts(**slow))) for _ in range(5)]
    assert [len(found) for found in rounds] == [0, 0, 1, 0, 0]
    event = rounds[2][0]
    assert (event["host"], event["what"], event["value"], event["typical"]) == ("node-2", "clock", 1200, 1980)
    assert event["words"] == "its GPUs run at 1200 MHz, those of the other hosts at 1980 (thermal)"
    over = [list(stragglers.look(_hosts())) for _ in range(3)]
    assert over[2] == [{"event": "straggler_over", "host": "node-2", "what": "clock"}]


@pytest.mark.parametrize(
    "hosts",
    [
        {"a": Host(1980.0), "b": Host(1200.0)},  # which of two is right?
        {"a": Host(), "b": Host(), "c": Host()},
        {n: Host(step_time=t) for n, t in {"a": 1.0, "b": 1.1, "c": 1.2}.items()},
        {n: Host(cpu=c) for n, c in {"a": 1.0, "b": 1.0, "c": 1.9}.items()},  # those who wait spin
        {n: Host(cpu=c) for n, c in {"a": 0.01, "b": 0.01, "c": 0.02}.items()},
    ],
)
def test_who_is_no_straggler(hosts):
    stragglers = Stragglers()
    assert [list(stragglers.look(hosts)) for _ in range(5)] == [[]] * 5


def test_a_host_that_computes_while_others_sleep_is_named():
    stragglers = Stragglers()
    hosts = {n: Host(cpu=c) for n, c in {"a": 0.3, "b": 0.25, "c": 0.98}.items()}
    found = [event for _ in range(3) for event in stragglers.look(hosts)]
    assert [(event["host"], event["what"], event["unit"]) for event in found] == [("c", "wait", "cores")]


def test_ranks_that_tell_longer_steps_make_their_host_a_straggler():
    ranks = {rank: Seen(f"node-{rank}", runs=True, step_time=2.0 if rank == 3 else 1.0) for rank in range(4)}
    facts = Facts(ranks, {"node-0": Sample(NOW)}, stepped=NOW)
    rules = Rules(MonitorPlan(), 10.0)
    told = [event for second in range(0, 40, 10) for event in rules.look(facts, NOW + second)]
    assert [(event["host"], event["what"], event["value"]) for event in told] == [
        ("node-3", "step_time", 2.0)
    ]


def test_one_measurement_is_not_compared_twice():
    """A busy machine measures late: what a rank did before the first step would count again and again."""
    facts = Facts({rank: Seen(f"node-{rank}", 0, NOW, float(rank == 2), runs=True) for rank in range(3)})
    facts.stepped = NOW
    rules = Rules(MonitorPlan(), 1.0)
    assert [event for second in range(5) for event in rules.look(facts, NOW + second)] == []
    told = []
    for second in range(5, 9):
        for seen in facts.ranks.values():
            seen.sampled = NOW + second
        told += [event["host"] for event in rules.look(facts, NOW + second)]
    assert told == ["node-2"]


def test_idle_gpus_are_not_compared():
    busy, idle = {"utilization": 0.9, "clock": 1900, "throttled": "power"}, {"utilization": 0.0, "clock": 200}
    assert gpus_of({0: busy, 1: idle}) == (1900, "power")
    assert gpus_of({1: idle}) == (None, "")
