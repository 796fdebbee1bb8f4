"""`orchestrate logs`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests import samples
from tests.samples import click, orchestrate

LOGS = [sys.executable, "-m", "orchestrator", "logs"]
ENVIRON = {"PYTHONPATH": str(samples.ROOT)}


def shown(*words: str) -> list[str]:
    result = click("logs", *words)
    assert result.exception is None, result.exception
    return result.output.splitlines()


def test_logs_show_every_line_with_its_origin(zero_run):
    assert shown("zero-aaaa") == [
        "node1 starting",
        "node1 unfinished",
        "node1:0 step 2",
        "node1:0 caf\ufffd",
        "node2:2 ok",
        "node2:3 ValueError: bad",
    ]
    assert shown() == shown("last") == shown("zero") == shown(str(zero_run.path))


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (["--rank", "3"], ["node2:3 ValueError: bad"]),
        (["--rank", "0,2-3", "--host", "node2"], ["node2:2 ok", "node2:3 ValueError: bad"]),
        (["--host", "node2", "--grep", "^o"], ["node2:2 ok"]),
        (["--grep", "nothing like this"], []),
        (["--attempt", "1", "--rank", "2"], ["node2:2 ok"]),
    ],
)
def test_logs_can_be_narrowed(zero_run, words, lines):
    assert shown("zero-aaaa", *words) == lines


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "node9"], 2, "--host: no such host in this run (got node9)\n  fix: it has: node1, node2"),
        (["--rank", "0,7"], 2, "--rank: no such rank in this run (got 7)\n  fix: ranks are 0 to 3"),
        (["--attempt", "4"], 2, "--attempt: no such attempt (got 4)\n  fix: there are: 1"),
        (["--rank", "one"], 2, "'one' is no set of ranks such as 0,8-15"),
        (["--rank", "3-"], 2, "no set of ranks"),
        (["--rank", "5-2"], 2, "no set of ranks"),
        (["--rank", "²"], 2, "no set of ranks"),
        (["--grep", "("], 2, "'(' is no regular expression"),
        (["--since", "5m", "--until", "10m"], 2, "--until 10m is no later than --since 5m"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_a_selection_that_is_wrong_is_told(zero_run, here, words, code, told):
    done = orchestrate("logs", "zero-aaaa", *words, cwd=here)
    assert done.returncode == code
    assert told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_following_goes_on_until_the_run_ends(zero_run, here, spawn):
    process = spawn(*LOGS, "-f", "zero-aaaa", "--rank", "2", env=ENVIRON, cwd=here)
    assert process.stdout.readline() == "node2:2 ok\n"
    with (zero_run.attempt(1).logs / "node2.rank2.out").open("a") as file:
        file.write("later\nunfinished")
        file.flush()
        assert process.stdout.readline() == "node2:2 later\n"
    zero_run.write_verdict({"state": "FAILED", "summary": "", "ended": 1.0})
    assert process.communicate(timeout=20)[0] == "node2:2 unfinished\n"
    assert process.returncode == 0


def test_ctrl_c_leaves_the_run_alone_and_says_so(zero_run, here, spawn):
    process = spawn(*LOGS, "-f", "zero-aaaa", env=ENVIRON, cwd=here, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "zero-aaaa goes on; `orchestrate cancel zero-aaaa` ends it" in process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert not zero_run.cancel_file.exists()


def test_a_reader_that_has_enough_ends_it_quietly(zero_run, here):
    (zero_run.attempt(1).logs / "node1.rank0.out").write_text("line\n" * 200_000)
    command = f"{' '.join(LOGS)} zero-aaaa --rank 0 | head -n 1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, **ENVIRON}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("node1:0 line\n0\n", "")
