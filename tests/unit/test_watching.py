"""The supervisor's side of the collector: it is kept alive, and what it finds is noted once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.collector.hang import Hang
from orchestrator.monitor.records import Records
from orchestrator.plan import MonitorPlan
from orchestrator.states import State
from orchestrator.supervisor import watching
from orchestrator.supervisor.dump_box import Dump
from orchestrator.supervisor.watching import Watching
from tests import samples
from tests.board import Board
from tests.flight_records import dump, entry

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

SILENCE = {"event": "hang", "ranks": [1], "others": [0], "since": 100.0, "silent": 130.0}
STACK = """Process 7: python train.py
Thread 7 (idle): "MainThread"
    readline (/home/me/data.py:57)
    <module> (/home/me/train.py:12)
"""


WAIT = "wait (/x/site-packages/torch/distributed/c.py:5)"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return samples.run_dir(tmp_path, "job-abcd", State.RUNNING, hosts=samples.pool("a slots=1\nb slots=1\n"))


def _events(run: RunDir, name: str) -> list[dict[str, Any]]:
    return [event for event in Records(run.events_file).new() if event["event"] == name]


async def _until(done: Any) -> None:
    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def _watching(run: RunDir, board: Any, stop_after: float | str = "never") -> Watching:
    plan = samples.plan(samples.pool("a slots=1\nb slots=1\n"), monitor=MonitorPlan(stop_after=stop_after))
    return Watching(run, plan, 1, board)


def test_a_collector_that_is_killed_is_started_again_and_the_end_waits_for_its_last_line(run):
    log = run.attempt(1).logs / f"{run.plan().hosts[0].file_name}.rank0.out"

    async def drive() -> Watching:
        watch = _watching(run, Board())
        await _until((run.path / ".metrics.json").exists)
        os.kill(watch._process.pid, signal.SIGKILL)
        await _until(lambda: _events(run, "collector_ended"))
        log.write_text("step 1 loss 1.5\nstep 2 loss 1.4")
        await _until(run.metrics_file.read_text)
        await watch.end()
        return watch

    asyncio.run(drive()).finish()
    assert _events(run, "collector_ended")[0]["again"]
    assert len(_events(run, "first_step")) == 1
    steps = [record["step"] for record in Records(run.metrics_file).new()]
    assert steps == [1, 2]


def test_a_signal_for_the_supervisor_does_not_go_to_the_thread(run):
    async def drive() -> None:
        watch = _watching(run, Board())
        blocked = (await asyncio.to_thread(_mask_of, watch._thread.native_id)) & (1 << (signal.SIGTERM - 1))
        await watch.end()
        watch.finish()
        assert blocked

    asyncio.run(drive())


def _mask_of(thread: int | None) -> int:
    lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))


def _judged(
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    stop_after: float | str,
    silence: dict[str, Any] = SILENCE,
) -> Board:
    board = Board()

    async def dumps(_board: Any, ranks: list[int], _seconds: float) -> dict[int, Dump]:
        return {rank: Dump(rank, "b", "py-spy" if text else "", text, f"b.rank{rank}.txt") for rank in ranks}

    async def drive() -> None:
        monkeypatch.setattr(watching, "collect_dumps", dumps)
        watch = _watching(run, board, stop_after)
        for _ in range(3):  # a silence that lasts is told again
            watch._hear(silence)
            await asyncio.sleep(0)
        await _until(lambda: not watch._tasks or watch._hang)
        if stop_after == 0.0 and not silence["others"]:
            await _until(lambda: board.ended)
        watch._hear({"event": "hang_over"})
        await watch.end()
        watch.finish()

    asyncio.run(drive())
    return board


def test_a_hang_is_noted_once_with_its_place_and_its_end(run, monkeypatch):
    # rank 0 is said to be at work, but it stands where it cannot be told from one that waits
    stacks = STACK.replace("readline (/home/me/data.py:57)", WAIT)
    board = _judged(run, monkeypatch, stacks, "never")
    hang = _events(run, "hang")
    assert len(hang) == len(_events(run, "hang_over")) == 1
    assert {key: hang[0][key] for key in ("silent", "since", "how")} == {
        "silent": 130.0, "since": 100.0, "how": "py-spy",
    }  # fmt: skip
    assert board.ended == []


def test_silent_ranks_without_stacks_are_told_but_the_others_may_be_at_work(run, monkeypatch):
    board = _judged(run, monkeypatch, "", 0.0)
    [hang] = _events(run, "hang")
    assert (hang["ranks"], hang["waiting"], hang["hosts"], hang["dumps"]) == (
        [1],
        [0],
        ["b"],
        ["b.rank0.txt", "b.rank1.txt"],
    )
    assert board.ended == []


def test_a_hang_of_all_ranks_ends_the_run_without_stacks_too(run, monkeypatch):
    board = _judged(run, monkeypatch, "", 0.0, SILENCE | {"ranks": [0, 1], "others": []})
    [(state, reason)] = board.ended
    assert state is State.FAILED
    assert reason.startswith("ranks 0, 1 on 2 hosts hang; nothing has moved for ")


def test_a_hang_is_over_when_the_stuck_rank_moves_though_those_that_waited_still_do(run, monkeypatch):
    # A file server was away for minutes; now rank 1 goes on saving, and rank 0 sleeps in its barrier.
    stacks = {0: STACK.replace("readline (/home/me/data.py:57)", WAIT), 1: STACK}
    board = Board()

    async def dumps(_board: Any, ranks: list[int], _seconds: float) -> dict[int, Dump]:
        return {rank: Dump(rank, "b", "py-spy", stacks[rank], f"b.rank{rank}.txt") for rank in ranks}

    async def drive() -> None:
        monkeypatch.setattr(watching, "collect_dumps", dumps)
        watch = _watching(run, board, 3600.0)
        watch._hear(SILENCE | {"ranks": [0, 1], "others": []})
        await _until(lambda: watch._hang)
        assert watch._hang.stuck == (1,)
        watch._hear(SILENCE | {"ranks": [0], "others": [1]})
        await _until(lambda: _events(run, "hang_over") and len(watch._tasks) == 0)
        await watch.end()
        watch.finish()

    asyncio.run(drive())
    assert board.ended == []
    assert len(_events(run, "hang")) == 1


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_is_not_ended_when_the_stuck_rank_stands_elsewhere_by_then(run, monkeypatch, moved):
    looks = [STACK, STACK.replace("data.py:57", "data.py:60") if moved else STACK]
    board = Board()

    async def dumps(_board: Any, ranks: list[int], _seconds: float) -> dict[int, Dump]:
        stack = looks.pop(0) if len(looks) > 1 else looks[0]
        return {rank: Dump(rank, "b", "py-spy", stack, f"b.rank{rank}.txt") for rank in ranks}

    async def drive() -> None:
        monkeypatch.setattr(watching, "collect_dumps", dumps)
        watch = _watching(run, board, 0.0)
        watch._hear(SILENCE | {"ranks": [0, 1], "others": []})
        await _until(lambda: board.ended or _events(run, "hang_over"))
        await watch.end()
        watch.finish()

    asyncio.run(drive())
    assert (not board.ended, len(_events(run, "hang_over"))) == (moved, moved)


def test_a_hang_tells_what_the_flight_recorders_know(run, monkeypatch):
    places = [STACK.replace("readline (/home/me/data.py:57)", WAIT), STACK]
    names = [host.file_name for host in run.plan().hosts]
    for rank, entries in enumerate([[entry(1), entry(2, done=False)], [entry(1)]]):
        file = run.attempt(1).dumps / f"{names[rank]}.rank{rank}.fr.{rank}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(dump(entries, 2))

    async def dumps(_board: Any, ranks: list[int], _seconds: float) -> dict[int, Dump]:
        return {rank: Dump(rank, "b", "py-spy", places[rank], "", flight=True) for rank in ranks}

    async def drive() -> None:
        monkeypatch.setattr(watching, "collect_dumps", dumps)
        watch = _watching(run, Board())
        watch._hear(SILENCE)
        await _until(lambda: _events(run, "hang"))
        watch._hear({"event": "stall", "ranks": [0, 1], "since": 1.0, "silent": 900.0})
        assert watch._stalling._task is None  # a hang is known
        await watch.end()
        watch.finish()

    asyncio.run(drive())
    [hang] = _events(run, "hang")
    assert (hang["ranks"], hang["flight"]["culprits"], hang["flight"]["number"]) == ([1], [1], 2)
    told = "(rank 1 did not join all_reduce #2 (train.py:2 step), in which rank 0 waits)"
    assert run.status()["reason"].endswith(told)


def test_a_rank_at_work_is_no_hang(run, monkeypatch):
    board = _judged(run, monkeypatch, STACK, 0.0001)
    assert _events(run, "hang") == board.ended == []


def test_what_was_noted_before_a_takeover_is_not_noted_again(run):
    tag = {"event": "checkpoint", "tag": "global_step5", "step": 5, "began": 1.0, "ended": 2.0}
    run.add_event(**tag)

    async def drive() -> None:
        watch = _watching(run, Board())
        for event in (
            tag,
            tag | {"ended": 9.0},
            {"event": "straggler", "host": "a"},
            {"event": "straggler", "host": "a"},
        ):
            watch._hear(event)
        await watch.end()
        watch.finish()

    asyncio.run(drive())
    assert [event["ended"] for event in _events(run, "checkpoint")] == [2.0, 9.0]
    assert len(_events(run, "straggler")) == 2


def test_one_that_waits_is_told_in_the_singular():
    assert watching.describe(Hang((1,), (0,)), ["b"], {}) == "rank 1 on b hangs, while another one waits"
