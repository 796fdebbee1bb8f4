"""`orchestrate logs`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from orchestrator.rundir import write_text
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


def test_why_there_is_nothing_is_said(here):
    waiting = samples.run_dir(here / "runs", "wait-aaaa")
    words = ("wait-aaaa", "--run-root", str(here / "runs"))
    assert "wait-aaaa has no logs yet: CREATED" in samples.orchestrate("logs", *words, cwd=here).stderr
    waiting.write_verdict({"state": "FAILED", "summary": "sbatch refused the job", "ended": 1.0})
    done = samples.orchestrate("logs", *words, cwd=here)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "wait-aaaa has no logs: FAILED sbatch refused the job\n"
    assert (
        "has no metrics: it ended before any came" in samples.orchestrate("metrics", *words, cwd=here).stderr
    )


def test_a_host_that_was_lost_is_looked_for_in_the_attempt_that_had_it(zero_run):
    """A second attempt runs without node2."""
    second = zero_run.attempt(2)
    second.logs.mkdir(parents=True)
    (second.logs / "node1.rank0.out").write_text("again\n")
    write_text(second.plan_file, samples.plan(hosts=samples.pool("node1 slots=2\n")).to_json())
    assert shown("zero-aaaa", "--attempt", "all", "--host", "node2") == [
        "node2:2 ok",
        "node2:3 ValueError: bad",
    ]
    assert shown("zero-aaaa", "--attempt", "all", "--rank", "3") == ["node2:3 ValueError: bad"]
    refused = samples.orchestrate("logs", str(zero_run.path), "--host", "node2").stderr
    assert "no such host in this attempt (got node2)\n  fix: add --attempt 1" in refused
    assert click("metrics", "zero-aaaa", "--host", "node2").exception is None


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "node9"], 2, "--host: no such host in this run (got node9)\n  fix: it has: node1, node2"),
        (["--rank", "3", "--host", "node1"], 2, "--rank: is not on node1 (got 3)\n  fix: it is on node2"),
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
    assert process.communicate(timeout=120)[0] == "node2:2 unfinished\n"
    assert process.returncode == 0


def test_of_a_run_that_is_over_the_last_lines_are_as_many_as_were_asked_for(zero_run):
    (zero_run.attempt(1).logs / "node2.rank2.out").write_text("one\ntwo\nunfinished")
    zero_run.write_verdict({"state": "FAILED", "summary": "", "ended": 1.0})
    words = ("zero-aaaa", "--rank", "2", "--tail", "2")
    assert shown(*words) == shown(*words, "-f")
    assert shown(*words, "-f")[1:] == ["node2:2 two", "node2:2 unfinished"]  # behind a note on times


def test_following_a_host_goes_on_when_the_next_attempt_is_without_it(zero_run, here, spawn):
    process = spawn(*LOGS, "-f", "zero-aaaa", "--host", "node2", env=ENVIRON, cwd=here)
    assert process.stdout.readline() == "node2:2 ok\n"
    for number, hosts in ((2, "node1 slots=2\n"), (3, "node1 slots=2\nnode2 slots=2\n")):
        later = zero_run.attempt(number)
        later.logs.mkdir(parents=True)
        write_text(later.plan_file, samples.plan(hosts=samples.pool(hosts)).to_json())
        (later.logs / "node1.rank0.out").write_text("without it\n")
    (later.logs / "node2.rank2.out").write_text("again there\n")
    zero_run.write_verdict({"state": "FAILED", "summary": "", "ended": 1.0})
    shown = process.communicate(timeout=120)[0].splitlines()
    assert shown[-1] == "node2:2 again there"
    assert process.returncode == 0


def test_ctrl_c_leaves_the_run_alone_and_says_so(zero_run, here, spawn):
    process = spawn(*LOGS, "-f", "zero-aaaa", env=ENVIRON, cwd=here, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert "zero-aaaa goes on; `orchestrate cancel zero-aaaa` ends it" in process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert not zero_run.cancel_file.exists()


def test_a_reader_that_has_enough_ends_it_quietly(zero_run, here):
    (zero_run.attempt(1).logs / "node1.rank0.out").write_text("line\n" * 200_000)
    command = f"{' '.join(LOGS)} zero-aaaa --rank 0 | head -n 1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, **ENVIRON}
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("node1:0 line\n0\n", "")
