"""The training stand-in does what the contract suite relies on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.asleep import await_sleep
from tests.testbed import processes

SCRIPT = Path(__file__).with_name("rank_script.py")


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the script as one rank."""
    argv = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(argv, env=os.environ | env, capture_output=True, text=True, check=False)


def living(pids: list[int]) -> list[processes.Process]:
    """Return those of the processes that live."""
    return [process for pid in pids if (process := processes.read(pid)) is not None]


def test_it_reports_what_it_was_given(tmp_path: Path) -> None:
    words = ["--report", str(tmp_path / "new/folder"), "--env", "ODD", "--local_rank=3", "a 'b' $c"]
    done = run(*words, RANK="3", MASTER_ADDR="node1", ODD="x;\n\"y'")
    facts = json.loads((tmp_path / "new/folder/rank-3.json").read_text())
    assert facts == json.loads(done.stdout.removeprefix("REPORT "))
    assert (facts["env"]["RANK"], facts["env"]["MASTER_ADDR"], facts["env"]["ODD"]) == (
        "3",
        "node1",
        "x;\n\"y'",
    )
    assert facts["unknown"] == ["--local_rank=3", "a 'b' $c"]
    assert facts["argv"][1:] == words


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--fail-rank", "1"], 1),
        (["--fail-rank", "0"], 0),
        (["--exit-code", "7", "--fail-rank", "0,1"], 7),
        (["--exit-code", "7"], 0),
        (["--signal", "SIGSEGV", "--fail-rank", "all"], -signal.SIGSEGV),
        (["--signal", "9", "--fail-rank", "1"], -signal.SIGKILL),
        (["--signal", "TERM", "--fail-rank", "1"], 1),
        (["--raise", "loss is nan", "--fail-rank", "1", "--after", "0.01"], 1),
    ],
)
def test_rank_1_ends_as_told(words: list[str], code: int) -> None:
    done = run(*words, RANK="1")
    assert done.returncode == code
    assert ("RuntimeError: loss is nan" in done.stderr) == ("--raise" in words)


def test_lines_are_numbered_on_both_streams() -> None:
    done = run("--lines", "3", "--tail", "no newline", RANK="2")
    assert done.stdout.splitlines()[1:] == [*(f"out rank 2 line {n}" for n in range(3)), "no newline"]
    assert done.stdout.endswith("no newline")
    assert done.stderr.splitlines() == [f"err rank 2 line {n}" for n in range(3)]


def test_it_lives_until_a_file_is_there(tmp_path: Path) -> None:
    argv = [sys.executable, str(SCRIPT), "--until", str(tmp_path / "gate")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("REPORT ")
        assert process.poll() is None
        (tmp_path / "gate").touch()
        assert process.wait() == 0


def test_the_master_port_collides_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    words = ["--bind-master-port-once", str(tmp_path / "marker")]
    assert run(*words, RANK="1", MASTER_PORT=port).returncode == 0
    first = run(*words, RANK="0", MASTER_PORT=port)
    assert first.returncode == 1
    assert "OSError: [Errno 98] Address already in use" in first.stderr
    assert run(*words, RANK="0", MASTER_PORT=port).returncode == 0


@pytest.mark.parametrize("ignore", [False, True])
def test_sigterm_is_noted_and_ends_it_unless_ignored(tmp_path: Path, ignore: bool) -> None:
    words = ["--sleep", "60", "--children", "4", "--report", str(tmp_path), *(["--ignore-sigterm"] * ignore)]
    argv = [sys.executable, str(SCRIPT), *words]
    pids: list[int] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as rank:
        assert rank.stdout is not None
        pids = json.loads(rank.stdout.readline().removeprefix("REPORT "))["children"]
        try:
            await_sleep(*pids)  # in the middle of an exec, a process has no arguments
            assert all("sleep 3600" in " ".join(alive.argv) for alive in living(pids))
            assert len(living(pids)) == 4
            assert len({os.getsid(pid) for pid in pids}) == 4
            for pid in (rank.pid, *pids):
                os.kill(pid, signal.SIGTERM)
            if ignore:
                while not (tmp_path / "rank-0.sigterm").exists():
                    assert rank.poll() is None
                    time.sleep(0.01)
                with pytest.raises(subprocess.TimeoutExpired):
                    rank.wait(0.3)
                assert [alive.pid for alive in living(pids)] == pids
            else:
                assert rank.wait() == -signal.SIGTERM
        finally:
            processes.end([*pids, rank.pid])
    assert float((tmp_path / "rank-0.sigterm").read_text()) > 0
