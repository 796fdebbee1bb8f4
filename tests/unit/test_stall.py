"""Ranks that are busy and go no further: when they are looked at, and what two looks tell."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator.collector.intake import Facts, Seen
from orchestrator.collector.rules import Rules
from orchestrator.collector.stall import Look, Stall, describe, judge, patience, span
from orchestrator.monitor.flight import read_all
from orchestrator.monitor.flight_file import Call, Record, Track
from orchestrator.monitor.records import Records
from orchestrator.monitor.stacks import Place, where
from orchestrator.plan import MonitorPlan
from orchestrator.states import State
from orchestrator.supervisor import stalling
from orchestrator.supervisor.dump_box import Dump
from tests import samples
from tests.board import Board

DATA = Path(__file__).parents[1] / "data/flight"
NOW = 10_000.0
WAITS = Place("/x/train.py", 57, "step", waiting=True, collective="all_reduce")
GATHERS = Place("/x/train.py", 61, "step", waiting=True, collective="all_gather")
GUESSED = Place("/x/train.py", 58, "step", waiting=True, guessed=True)  # `loss.item()`
READS = Place("/x/data.py", 12, "tokenize", waiting=False)
EVALUATES = Place("/x/eval.py", 30, "evaluate", waiting=False)


def record(rank: int, last: int, *, pending: bool, op: str = "all_reduce") -> Record:
    calls = {number: Call("all_reduce", 4, "Float", "train.py:57 step", 1.0) for number in range(1, last + 1)}
    calls[last] = calls[last]._replace(op=op)
    track = Track(calls, {last} if pending else set(), last)
    return Record(rank, {("0", "default_pg"): track}, {"0": (0, 1, 2, 3)})


BEHIND = {0: record(0, 5, pending=True), 1: record(1, 5, pending=True), 2: record(2, 4, pending=False)}
DIFFERS = BEHIND | {2: record(2, 5, pending=True, op="broadcast")}
AT_WORK = {rank: record(rank, 5, pending=False) for rank in range(3)}
ON = {rank: record(rank, 6, pending=True) for rank in range(3)}


def facts(**changes: Any) -> Facts:
    """Return a run of two busy ranks with steps of a second, which has been quiet since NOW."""
    ranks = {rank: Seen("a", NOW, NOW, 1.0, runs=True) for rank in range(2)}
    return dataclasses.replace(Facts(ranks, {}, NOW, [1.0] * 50, heard=NOW), **changes)


def told(of: Facts, seconds: range, again: int | None = None) -> list[tuple[int, str]]:
    rules, found = Rules(MonitorPlan(), 10.0), []
    for second in seconds:
        for seen in of.ranks.values():
            seen.active = seen.sampled = NOW + second
        if second == again:
            of.hear(NOW + second)
        found += [(second, event["event"]) for event in rules.look(of, NOW + second)]
    return found


def test_busy_ranks_without_a_sign_are_looked_at_again_and_again_until_there_is_one():
    found = told(facts(), range(0, 500, 5), again=390)
    assert found == [*((second, "stall") for second in (360, 370, 380)), (390, "stall_over")]


@pytest.mark.parametrize(
    ("of", "quiet"),
    [
        (facts(longest=600.0), 895),  # an evaluation took ten minutes before
        (facts(moved=NOW + 300), 400),  # a checkpoint is being written
        (facts(step_times=[60.0] * 50), 895),  # steps of a minute
        (facts(stepped=0.0, step_times=[]), 1795),  # imports, loads, compiles; or never tells a step
        (facts(ranks={0: Seen("a")}), 5000),  # has not started
        (facts(heard=0.0), 5000),
    ],
)
def test_what_is_usual_is_no_stall(of, quiet):
    assert told(of, range(0, quiet, 5)) == []


def test_the_event_says_since_when_and_what_is_usual():
    [event] = Rules(MonitorPlan(), 10.0).look(facts(), NOW + 400)
    assert event == {
        "event": "stall", "ranks": [0, 1], "since": NOW, "silent": 400.0, "usual": 1.0,
    }  # fmt: skip


def test_a_run_that_is_not_to_be_watched_is_not():
    assert list(Rules(MonitorPlan(hang_after="never"), 10.0).look(facts(), NOW + 9000)) == []


def test_the_longest_quiet_time_counts_from_the_first_step_on():
    of = Facts({})
    of.hear(100.0)
    of.hear(900.0)
    assert of.longest == 0.0
    of.stepped = 900.0
    of.hear(1000.0)
    of.hear(1010.0)
    assert of.longest == 100.0
    assert patience(10.0, of.longest, moving=False) == 150.0


@pytest.mark.parametrize(
    ("places", "records", "stall"),
    [
        # gloo: who stands in a collective waits for who does not
        ({0: WAITS, 1: WAITS, 2: READS}, {}, Stall((2,), (0, 1))),
        ({0: WAITS, 1: WAITS, 2: None}, {}, Stall((2,), (0, 1))),
        # NCCL: the stacks show where they wait for the GPU, the records for whom
        ({0: GUESSED, 1: GUESSED, 2: READS}, BEHIND, (2,)),
        ({0: GUESSED, 1: GUESSED, 2: None}, BEHIND, (2,)),
        # without records, most must stand at such a line
        ({0: GUESSED, 1: GUESSED, 2: READS}, {}, Stall((2,), (0, 1))),
        ({0: GUESSED, 1: READS, 2: READS}, {}, None),
        # evaluation: nobody waits for another, whatever the lines look like
        ({0: EVALUATES, 1: EVALUATES, 2: EVALUATES}, {}, None),
        ({0: GUESSED, 1: GUESSED, 2: GUESSED}, {}, None),
        ({0: GUESSED, 1: GUESSED, 2: EVALUATES}, AT_WORK, None),
        # all in one collective: nobody knows why
        ({0: WAITS, 1: WAITS, 2: WAITS}, {}, Stall((), (0, 1, 2))),
        # unlike ones: it cannot resolve
        ({0: WAITS, 1: WAITS, 2: GATHERS}, {}, Stall((2,), (0, 1), proven=True)),
        ({0: None, 1: None, 2: None}, {}, None),
    ],
)
def test_who_holds_up_whom(places, records, stall):
    look = Look(places, records)
    found = judge(look, look, 3)
    if isinstance(stall, tuple):
        assert (found.culprits, found.finding.kind, found.proven) == (stall, "behind", False)
    else:
        assert found == stall


@pytest.mark.parametrize(
    ("case", "proven", "words"),
    [
        (
            "behind",
            False,
            (
                "ranks 0-2 wait in spin (train.py:22); rank 3 is in loop_in_tokenizer (train.py:13); "
                "rank 3 did not join all_reduce #5 (train.py:53), in which ranks 0-2 wait"
            ),
        ),
        (
            "differs",
            True,
            (
                "ranks 0,2-3 wait in spin (train.py:22); rank 1 is in evaluate (train.py:27); rank 1 is in "
                "broadcast (train.py:26 evaluate) where ranks 0,2-3 wait in all_reduce #5 (train.py:53)"
            ),
        ),
        (
            "cycle",
            True,
            (
                "ranks 1-3 wait in spin (train.py:22); rank 0 is at train.py:50; rank 0 is in all_reduce #2 "
                "of group '1' (train.py:49) where ranks 1-3 wait in all_reduce #5 (train.py:53): they wait "
                "for one another"
            ),
        ),
    ],
)
def test_stacks_and_records_of_ranks_that_spin_on_four_gpus(case, proven, words):
    """Torch 2.11, NCCL 2.28.9: all ranks use a whole core each; rank 0 of `cycle` is in a group of two."""
    folder = DATA / f"stall-{case}"
    places = {rank: where((folder / f"host-0.rank{rank}.txt").read_text()) for rank in range(4)}
    look = Look(places, read_all(folder))
    found = judge(look, look, 4)
    assert found.proven == proven
    assert describe(found, look, 360.0, 0.1) == f"no step for 6 min (usually 0.1 s): {words}"


def test_records_that_come_late_count():
    places = {0: GUESSED, 1: GUESSED, 2: READS}
    found = judge(Look(places, {0: BEHIND[0], 1: BEHIND[1]}), Look(places, BEHIND), 3)
    assert (found.culprits, found.finding.kind) == ((2,), "behind")
    on = {0: record(0, 4, pending=True), 1: BEHIND[1]}
    assert judge(Look(places, on), Look(places, BEHIND), 3) is None


def test_unlike_collectives_in_the_records_never_resolve():
    look = Look({0: GUESSED, 1: GUESSED, 2: GUESSED}, DIFFERS)
    found = judge(look, look, 3)
    assert (found.culprits, found.proven) == ((2,), True)


def test_unlike_collectives_prove_nothing_while_ranks_are_unseen():
    look = Look({0: WAITS, 1: GATHERS})
    assert not judge(look, look, 4).proven


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Look({0: WAITS, 1: READS}), Look({0: GATHERS, 1: READS})),  # who waited is elsewhere
        (Look({0: WAITS, 1: READS}, AT_WORK), Look({0: WAITS, 1: READS}, ON)),
        (Look({0: GUESSED, 1: READS, 2: READS}, BEHIND), Look({0: GUESSED, 1: READS, 2: READS}, ON)),
        (Look({0: READS, 1: READS}), Look({0: WAITS, 1: READS})),
    ],
)
def test_ranks_that_move_do_not_stall(first, second):
    assert judge(first, second, 3) is None


def test_a_stall_in_words():
    look = Look({0: WAITS, 1: WAITS, 2: WAITS, 3: READS})
    words = describe(Stall((3,), (0, 1, 2)), look, 840.0, 2.0)
    assert words == (
        "no step for 14 min (usually 2 s): ranks 0-2 wait in all_reduce (train.py:57); "
        "rank 3 is in tokenize (data.py:12)"
    )
    assert describe(Stall((), (0, 1)), Look({}), 30.0, None) == "no line of log for 30 s: ranks 0-1"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.15, "0.15 s"), (59, "59 s"), (840, "14 min"), (5400, "1.5 h"), (864000, "10 d")]
)
def test_times_in_words(seconds, words):
    assert span(seconds) == words


STACK = """Process 7: python train.py
Thread 7 (active): "MainThread"
    {frame}
    <module> (/home/me/train.py:12)
"""


def driven(tmp_path: Path, frames: list[str], stop_after: float | str) -> tuple[Any, Board]:
    """Return the run and the board after ranks 0 and 1 have been seen to stand in these frames."""
    pool = samples.pool("a slots=1\nb slots=1\n")
    run = samples.run_dir(tmp_path, "job-abcd", State.RUNNING, hosts=pool)
    plan, board = samples.plan(pool, monitor=MonitorPlan(stop_after=stop_after)), Board()

    async def collect(_board: Any, ranks: Any, _seconds: float) -> dict[int, Dump]:
        return {
            rank: Dump(rank, "b", "py-spy", STACK.format(frame=frames[rank]), f"b.rank{rank}.txt")
            for rank in ranks
        }

    async def drive() -> None:
        watch = stalling.Stalling(run, plan, 1, board, collect)
        for _ in range(2):
            watch.hear({"ranks": [0, 1], "since": 100.0, "silent": 0.03, "usual": 1.0})
        await watch._task
        watch.hear({"ranks": [0, 1], "since": 100.0, "silent": 0.06, "usual": 1.0})
        assert watch._task is None
        watch.over()

    asyncio.run(drive())
    return run, board


REDUCE = "all_reduce (/x/site-packages/torch/distributed/distributed_c10d.py:5)"
GATHER = "all_gather (/x/site-packages/torch/distributed/distributed_c10d.py:7)"


def events(run: Any) -> list[dict[str, Any]]:
    return [
        event
        for event in Records(run.events_file).new()
        if "stall" in event["event"] or "hang" in event["event"]
    ]


def test_a_stall_is_told_once_and_its_end_and_the_run_goes_on(tmp_path):
    run, board = driven(tmp_path, [REDUCE, "tokenize (/home/me/data.py:12)"], 0.0)
    stall, over = events(run)
    assert (stall["event"], stall["ranks"], stall["waiting"], stall["hosts"]) == ("stall", [1], [0], ["b"])
    assert stall["where"] == {"0": "train.py:12 <module>", "1": "data.py:12 tokenize"}
    assert (over["event"], board.ended, run.status()["reason"]) == ("stall_over", [], "")


def test_one_that_cannot_resolve_is_a_hang_and_ends_the_run(tmp_path):
    run, board = driven(tmp_path, [REDUCE, GATHER], 0.0)
    assert [event["event"] for event in events(run)] == ["hang", "hang_over"]
    [(state, reason)] = board.ended
    assert state is State.FAILED
    assert "rank 0 waits in all_reduce (train.py:12)" in reason


def test_one_that_cannot_resolve_is_left_alone_where_the_job_file_says_so(tmp_path):
    run, board = driven(tmp_path, [REDUCE, GATHER], "never")
    assert events(run)[0]["event"] == "hang"
    assert board.ended == []


def test_ranks_at_work_are_not_told(tmp_path):
    run, _ = driven(tmp_path, ["f (/home/me/a.py:1)", "g (/home/me/a.py:2)"], 0.0)
    assert events(run) == []


def test_of_a_large_run_some_ranks_of_every_host_are_looked_at():
    pool = samples.pool("".join(f"n{i} slots=8\n" for i in range(200)))
    plan = samples.plan(pool)
    chosen = stalling._sample(list(range(plan.world_size)), plan)
    assert len(chosen) == 1000
    assert {rank // 8 for rank in chosen} == set(range(200))
    assert stalling._sample([5, 9], plan) == [5, 9]
