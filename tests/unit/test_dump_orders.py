"""Orders to dump ranks, from the supervisor's board over the real channel to the agent's part, and back."""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.agent import dumping as agent_dumping
from orchestrator.agent.channel import Channel
from orchestrator.monitor.stacks import where
from orchestrator.supervisor import dump_box, dumping
from orchestrator.supervisor.board import Board
from tests import samples
from tests.asleep import await_sleep

pytestmark = pytest.mark.skipif(dumping.own_tool() is None, reason="py-spy is not installed")
STUCK = """
import time
def read_batch():
    print("there", flush=True)
    time.sleep(600)
read_batch()
"""
FAULT = """warning
Fatal Python error: Aborted

Current thread 0x1 (most recent call first):
  File "/t.py", line 3 in f
"""


class Agent:
    """The agent's part in dumps: its channel and its dumper, in a thread."""

    def __init__(self, port: int, dumper: agent_dumping.Dumper, pids: dict[int, int]) -> None:
        self.dumper, self.pids, self.over = dumper, pids, threading.Event()
        self.selector = selectors.DefaultSelector()
        config = {"token": "secret", "run_id": "job-abcd", "port": port, "addresses": [], "lease": 30.0}
        self.channel = Channel(self.selector, config | {"control_address": "127.0.0.1"}, "node1")
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.over.is_set():
            self.channel.tick()
            for key, mask in self.selector.select(0.02):
                key.data(mask)
            for message in self.channel.receive():
                if message["t"] == "dump":
                    self.dumper.order(message, self.pids)
                elif message["t"] == "tool":
                    self.dumper.take_tool(message)
            for answer in self.dumper.answers():
                self.channel.send(*answer)
        self.channel.close()

    def close(self) -> None:
        self.over.set()
        self.thread.join()


def collected(tmp_path, dumper, pids: dict[int, int], ranks: list[int], seconds: float = 300):
    """Return what was collected, the board and the attempt; node2, of ranks 2 and 3, has no agent."""
    run = samples.run_dir(tmp_path)

    async def collect():
        board = Board(run.plan(), run, run.attempt(1), "secret")
        agent = Agent(await board.server.open(0, local=True), dumper, pids)
        try:
            while not board.server.is_connected("node1"):  # noqa: ASYNC110 - the agent's side is a thread
                await asyncio.sleep(0.01)
            return await dumping.collect_dumps(board, ranks, seconds), board
        finally:
            await asyncio.to_thread(agent.close)
            await board.server.close()

    found, board = asyncio.run(collect())
    return found, board, run.attempt(1)


def test_stacks_come_with_their_place_and_are_kept(tmp_path, python):
    stuck = python(STUCK)
    stuck.stdout.readline()
    await_sleep(stuck.pid, program="python")
    dumper = agent_dumping.Dumper(sys.executable, str(tmp_path / "given"))
    found, board, attempt = collected(tmp_path, dumper, {1: stuck.pid}, [1])
    assert (found[1].host, found[1].how, found[1].file, found[1].why) == (
        "node1", "py-spy", "node1.rank1.txt", "",
    )  # fmt: skip
    assert where(found[1].text).function == "read_batch"
    assert (attempt.dumps / "node1.rank1.txt").read_text() == found[1].text
    assert board.abort == set()


def test_a_host_without_py_spy_gets_ours(tmp_path, python, monkeypatch):
    stuck = python(STUCK)
    stuck.stdout.readline()
    await_sleep(stuck.pid, program="python")
    dumper = agent_dumping.Dumper(sys.executable, str(tmp_path / "given"))
    monkeypatch.setattr(agent_dumping, "find_tool", lambda _, given: given if Path(given).exists() else None)
    found, board, _ = collected(tmp_path, dumper, {1: stuck.pid}, [1])
    assert (found[1].how, board.abort) == ("py-spy", set())
    assert (tmp_path / "given").stat().st_size == dumping.own_tool().stat().st_size


def test_ranks_without_stacks_are_aborted_at_the_end_and_leave_them_then(tmp_path, spawn):
    other = spawn("sleep", "600")
    await_sleep(other.pid)
    dumper = agent_dumping.Dumper(sys.executable, str(tmp_path / "given"))
    found, board, attempt = collected(tmp_path, dumper, {0: other.pid}, [0])
    assert (found[0].how, found[0].why) == ("", "it runs no Python")
    assert found[0].text.startswith(f"# pid {other.pid}, state S")
    assert (board.abort, board._stop_order()["abort"]) == ({0}, [0])
    board.abort.add(2)
    (attempt.logs / "node1.rank0.err").write_text(FAULT)
    (attempt.logs / "node2.rank2.err").write_text("killed before it could say anything\n")
    (kept,) = dumping.keep_aborted(board, attempt)
    assert (kept.rank, kept.how, str(where(kept.text))) == (0, "faulthandler", "t.py:3 f")
    text = (attempt.dumps / "node1.rank0.txt").read_text()
    assert text.startswith(f"# pid {other.pid}")
    assert text.endswith("line 3 in f\n")


def test_a_rank_whose_host_is_out_of_reach_has_an_entry_that_says_so(tmp_path):
    dumper = agent_dumping.Dumper(sys.executable, str(tmp_path / "given"))
    found, board, _ = collected(tmp_path, dumper, {}, [2], seconds=0.3)
    assert (found[2].host, found[2].how, found[2].file) == ("node2", "", "")
    assert found[2].why == "its host did not answer in time"
    assert board.abort == {2}


def test_a_host_answers_for_its_own_ranks_only(tmp_path):
    run = samples.run_dir(tmp_path)
    box = dump_box.DumpBox(run.attempt(1))
    host = run.plan().hosts[0]
    box.take(host, {"id": "1", "rank": 2, "how": "py-spy", "why": ""}, b"of node2")
    box.take(host, {"id": "1", "rank": 1, "how": "py-spy", "why": ""}, b"its own \xff")
    assert {rank: dump.text for rank, dump in box.of("1").items()} == {1: "its own \ufffd"}
    assert box.of("2") == {}
