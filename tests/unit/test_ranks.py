from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import time

import pytest

from orchestrator.agent import processes
from orchestrator.agent.ranks import Ranks


@pytest.fixture
def ranks(folder):
    made = Ranks(str(folder), str(folder))
    yield made
    made.close()


def say(ranks: Ranks, **record) -> None:
    """Say something as a shim does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(json.dumps(record).encode(), ranks.socket_path)


def started(rank: int, shim: int) -> dict:
    return {
        "event": "start",
        "rank": rank,
        "local_rank": rank,
        "shim": shim,
        "pid": 1,
        "term_time": None,
        "time": 5.0,
    }


def ended(rank: int, shim: int, **how) -> dict:
    return {**started(rank, shim), "event": "exit", "exit_code": 0, "signal": None, "time": 9.0, **how}


def wait_for_ends(ranks: Ranks) -> list[dict]:
    deadline = time.monotonic() + 120
    while not (found := ranks.check()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_what_shims_say_is_heard_in_order_and_a_late_start_hides_no_end(ranks):
    assert ranks.hear() == []
    for record in (started(0, os.getpid()), started(1, os.getpid()), ended(1, os.getpid(), exit_code=3)):
        say(ranks, **record)
    assert [(record["rank"], record["event"]) for record in ranks.hear()] == [
        (0, "start"),
        (1, "start"),
        (1, "exit"),
    ]
    assert ranks.live() == [0]
    say(ranks, **started(1, os.getpid()))
    assert [record["exit_code"] for record in ranks.hear()] == [3]
    assert ranks.live() == [0]
    assert ranks.check() == []  # rank 0's shim, which is this process, is there


def test_a_shim_that_was_killed_ends_its_rank_by_sigkill(ranks, spawn):
    shim = spawn("sleep", "600")
    say(ranks, **started(4, shim.pid))
    ranks.hear()
    assert ranks.check() == []
    shim.kill()
    shim.wait()
    (record,) = wait_for_ends(ranks)
    assert (record["rank"], record["event"], record["exit_code"]) == (4, "exit", None)
    assert (record["signal"], record["term_time"]) == (signal.SIGKILL, None)
    assert record["message"] == "its process disappeared, as after SIGKILL"
    assert ranks.check() == ranks.live() == []


def test_the_loop_is_woken_when_a_shim_ends(folder, spawn):
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this Python has no pidfds")
    selector = selectors.DefaultSelector()
    ranks = Ranks(str(folder), str(folder), selector)
    shim = spawn("sleep", "600")
    say(ranks, **started(4, shim.pid))
    assert (ranks.unsettled, [record["rank"] for record in ranks.hear()]) == (False, [4])
    assert (ranks.unsettled, ranks.check(), selector.select(0)) == (False, [], [])
    shim.kill()
    ((key, mask),) = selector.select(120)
    key.data(mask)
    shim.wait()
    assert ranks.unsettled  # until its word has had time to come
    assert [record["signal"] for record in wait_for_ends(ranks)] == [signal.SIGKILL]
    assert (ranks.unsettled, selector.select(0)) == (False, [])
    ranks.close()


def test_a_rank_to_be_aborted_is_marked_for_its_shim(ranks, folder):
    say(ranks, **started(4, os.getpid()))
    ranks.hear()
    ranks.abort_at_end([4, 5])
    assert sorted(path.name for path in folder.glob("abort.*")) == ["abort.4"]
    assert ranks.pids() == {4: 1}


def test_the_record_on_disk_counts_when_its_datagram_was_lost(ranks, spawn, folder):
    shim = spawn("sleep", "600")
    say(ranks, **started(1, shim.pid))
    ranks.hear()
    for rank, code in ((1, 7), (11, 8)):
        (folder / f"a.rank{rank}.json").write_text(json.dumps(dict(ended(rank, shim.pid), exit_code=code)))
    shim.kill()
    shim.wait()
    assert [(record["rank"], record["exit_code"]) for record in wait_for_ends(ranks)] == [(1, 7)]


def test_ranks_are_told_once_through_their_shims(ranks, spawn):
    first, second = spawn("sleep", "600"), spawn("sleep", "600")
    for rank, shim in enumerate((first, second)):
        say(ranks, **started(rank, shim.pid))
    ranks.hear()
    assert ranks.terminate({1}) == [0]
    assert first.wait(timeout=120) == -signal.SIGTERM
    assert processes.read_process(second.pid) is not None
    (record,) = wait_for_ends(ranks)  # `sleep` is no shim and left no word
    assert record["term_time"] is not None
    assert record["message"] == ""
    assert ranks.terminate({0}) == [1]


def test_ranks_killed_with_their_shims_are_all_accounted_for(ranks, spawn, folder):
    shims = [spawn("sleep", "600") for _ in range(3)]
    for rank, shim in enumerate(shims):
        say(ranks, **started(rank, shim.pid))
    say(ranks, **ended(0, shims[0].pid))
    (folder / "a.rank1.json").write_text(
        json.dumps(ended(1, shims[1].pid, exit_code=None, signal=9, term_time=2.0))
    )
    ranks.hear()
    ends = {record["rank"]: (record["signal"], record["term_time"]) for record in ranks.killed()}
    assert ends == {1: (9, 2.0), 2: (signal.SIGKILL, None)}
    assert ranks.killed() == ranks.live() == []
