"""`orchestrate logs` by time, folded, as JSON, raw, and while a run goes on."""

from __future__ import annotations

import json
import sys
import time

import pytest

from orchestrator.rundir import write_json
from orchestrator.states import State
from tests import samples
from tests.made_run import BEGAN, made_run
from tests.samples import click, orchestrate
from tests.terminal import Terminal

LOGS = [sys.executable, "-m", "orchestrator", "logs"]
ENVIRON = {"PYTHONPATH": str(samples.ROOT)}


@pytest.fixture
def made(here):
    return made_run(here / "runs", hosts=3, slots=2, steps=4, failing=3)


def shown(*words):
    result = click("logs", "job-made", *words)
    assert result.exception is None, result.exception
    return result.output.splitlines()


def at(second):
    moment = BEGAN + second
    return time.strftime("%Y-%m-%d %H:%M:%S.000", time.localtime(moment))


def test_lines_are_merged_by_time_and_tell_it(made):
    lines = shown("--times")
    assert lines[0] == f"{at(2)} node-0 [orchestrate 12:00:00] agent 999 on host"
    assert lines[3:9] == [
        f"{at(31)} node-{rank // 2}:{rank} step 1/4 loss 5.329 tokens/s 8192 step_time 1.00s"
        for rank in range(6)
    ]
    assert lines == sorted(lines, key=lambda line: line[:23])


def test_a_failure_is_folded_and_its_cause_is_not(made):
    lines = shown("--fold")
    assert lines[0] == "node-[0-2] [orchestrate 12:00:00] agent 999 on host"
    assert [line.split()[:3] for line in lines[1:5]] == [["[0-5]", "step", f"{n}/4"] for n in range(1, 5)]
    assert lines[5] == "node-1:3 Traceback (most recent call last):"


def test_json_is_an_object_a_line(made):
    first, *_, last = map(json.loads, shown("--json", "--host", "node-1"))
    assert first == {
        "time": BEGAN + 2, "attempt": 1, "host": "node-1", "rank": None, "stream": "log",
        "text": "[orchestrate 12:00:00] agent 999 on host",
    }  # fmt: skip
    assert (last["rank"], last["stream"], last["time"]) == (3, "err", BEGAN + 34)


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--out"], 24),
        (["--err"], 3),
        (["--log"], 3),
        (["--out", "--err", "--rank", "3"], 7),
        (["--host", "node-[1-2]", "--out"], 16),
        (["--since", f"@{BEGAN + 33}", "--until", f"@{BEGAN + 33.5}"], 6),
        (["--tail", "5"], 5),
        (["--tail", "2", "--grep", "step 1/"], 2),
        (["--tail", "0"], 0),
    ],
)
def test_what_is_shown_can_be_narrowed(made, words, count):
    assert len(shown(*words)) == count


def test_raw_gives_one_logs_own_bytes(made, here):
    log = made.attempt(1).logs / "node-1.rank3.err"
    log.write_bytes(b"\x1b[1mbar\r99%\xff\n" * 3 + b"no end")
    words = ["--raw", "--rank", "3", "--err"]
    assert click("logs", "job-made", *words).stdout_bytes == log.read_bytes()
    assert click("logs", "job-made", *words, "--tail", "2").stdout_bytes == b"\x1b[1mbar\r99%\xff\nno end"
    assert click("logs", "job-made", "--raw", "--rank", "0", "--err").stdout_bytes == b""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--raw"],
            "--raw prints one log, and 15 logs are selected\n  fix: add --rank K with --out or --err",
        ),
        (["--raw", "--rank", "3"], "2 logs are selected"),
        (["--raw", "--json"], "--raw and --json do not go together"),
        (["--fold", "--no-fold"], "--fold and --no-fold do not go together"),
        (["-f", "--until", "10m"], "--follow and --until do not go together"),
        (["--log", "--rank", "1"], "--log and --rank do not go together"),
        (["--since", "soon"], "'soon' is no moment: expected 10m"),
        (["--attempt", "one"], "'one' is no attempt: give a number, or `all`"),
        (["--tail", "-1"], "-1 is not in the range"),
    ],
)
def test_what_does_not_go_together_is_told(made, here, words, told):
    done = orchestrate("logs", "job-made", *words, cwd=here)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_all_attempts_are_shown_one_after_the_other(made):
    second = made.attempt(2)
    second.logs.mkdir(parents=True)
    (second.logs / "node-0.rank0.out").write_text("again\n")
    (second.logs / "node-0.times").write_text(f"{BEGAN + 100:.3f} 0.out 6\n")
    assert shown("--rank", "0", "--out") == ["node-0:0 again"]
    assert shown("--rank", "0", "--out", "--attempt", "all")[-2:] == ["--- attempt 2", "node-0:0 again"]
    assert len(shown("--rank", "0", "--out", "--attempt", "all")) == 4 + 2
    assert shown("--attempt", "all", "--tail", "1") == ["node-0:0 again"]
    found = map(json.loads, shown("--json", "--tail", "2", "--attempt", "all"))
    assert [line["attempt"] for line in found] == [1, 2]


def test_clocks_that_are_off_are_put_right(made):
    index = made.attempt(1).logs / "node-2.times"
    ahead = [line.split(" ", 1) for line in index.read_text().splitlines()]
    index.write_text("".join(f"{float(when) + 500:.3f} {what}\n" for when, what in ahead))
    before = shown("--times")
    write_json(made.attempt(1).clocks_file, {"node-2": {"offset": 500.0, "uncertainty": 0.001}})
    after = shown("--times")
    assert before != after
    assert after == sorted(after, key=lambda line: line[:23])
    assert f"{at(31)} node-2:4 step 1/4 loss 5.329 tokens/s 8192 step_time 1.00s" in after


def test_logs_without_times_are_shown_and_say_so(zero_run, here):
    done = orchestrate("logs", "zero-aaaa", "--tail", "1", "--times", cwd=here)
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["-", "node1"], ["-", "node1:0"], ["-", "node2:2"], ["-", "node2:3"],
    ]  # fmt: skip
    assert "the logs of node[1-2] have no list of times; the last 1 lines of each are shown" in done.stderr
    assert all(
        json.loads(line)["time"] is None
        for line in orchestrate("logs", "--json", cwd=here).stdout.splitlines()
    )
    later = orchestrate("logs", "zero-aaaa", "--since", f"@{time.time() + 600}", cwd=here)
    assert later.stdout == ""
    assert (
        orchestrate("logs", "zero-aaaa", "--since", "10m", "--rank", "2", cwd=here).stdout == "node2:2 ok\n"
    )


def test_colours_stay_at_a_terminal_and_go_in_a_pipe(zero_run, here):
    (zero_run.attempt(1).logs / "node2.rank2.out").write_bytes(b"\x1b[32mok\x1b[0m\x1b[2J\n")
    words = ["zero-aaaa", "--rank", "2"]
    assert orchestrate("logs", *words, cwd=here).stdout == "node2:2 ok\n"
    coloured = orchestrate("logs", *words, "--color", cwd=here).stdout
    assert "\x1b[32mok\x1b[0m" in coloured
    assert "\x1b[2J" not in coloured
    with Terminal(*LOGS, *words, cwd=here, env=ENVIRON) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen.replace("\r\n", "\n") == coloured


def test_many_ranks_are_folded_at_a_terminal_only(made, here):
    with Terminal(*LOGS, "job-made", "--out", cwd=here, env=ENVIRON) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen.count("\n") == 4
    with Terminal(*LOGS, "job-made", "--out", "--no-fold", cwd=here, env=ENVIRON) as terminal:
        assert terminal.wait() == 0
    assert terminal.seen.count("\n") == 24
    assert orchestrate("logs", "job-made", "--out", cwd=here).stdout.count("\n") == 24


@pytest.fixture
def growing(here):
    return samples.run_dir(here / "runs", "grow-aaaa", State.RUNNING)


def write(path, text):
    with path.open("a") as file:
        file.write(text)


def test_what_is_there_is_sorted_and_then_lines_come_as_they_arrive(growing, here, spawn):
    logs = growing.attempt(1).logs
    write(logs / "node1.rank0.out", "one\nthree\n")
    write(logs / "node2.rank2.out", "two\nunfinished")
    write(logs / "node1.times", "10.000 0.out 4\n30.000 0.out 10\n")
    write(logs / "node2.times", "20.000 2.out 4\n30.000 2.out 14\n")
    process = spawn(*LOGS, "-f", "grow-aaaa", env=ENVIRON, cwd=here)
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines == ["node1:0 one\n", "node2:2 two\n", "node1:0 three\n"]
    write(logs / "node2.rank3.err", "new\n")
    assert process.stdout.readline() == "node2:3 new\n"
    write(logs / "node2.rank2.out", " and now it is\n")
    assert process.stdout.readline() == "node2:2 unfinished and now it is\n"
    write(logs / "node1.rank0.out", "last")
    growing.write_verdict({"state": "FAILED", "summary": "", "ended": 1.0})
    assert process.communicate(timeout=120)[0] == "node1:0 last\n"


def test_a_progress_bar_is_followed_without_its_line_ending(growing, here, spawn):
    log = growing.attempt(1).logs / "node1.rank0.err"
    write(log, "start\n")
    process = spawn(*LOGS, "-f", "grow-aaaa", env=ENVIRON, cwd=here)
    assert process.stdout.readline() == "node1:0 start\n"
    write(log, "\r 41%|####      | 412/1000")
    assert process.stdout.readline() == "node1:0  41%|####      | 412/1000\n"
    write(log, "\r100%|##########| 1000/1000\ndone\n")
    line = process.stdout.readline()
    while line == "node1:0 100%|##########| 1000/1000\n":
        line = process.stdout.readline()
    assert line == "node1:0 done\n"


def test_following_shows_attempts_that_begin_later(growing, here, spawn):
    write(growing.attempt(1).logs / "node1.rank0.out", "first\n")
    process = spawn(*LOGS, "-f", "grow-aaaa", "--json", env=ENVIRON, cwd=here)
    assert json.loads(process.stdout.readline())["text"] == "first"
    growing.attempt(2).logs.mkdir(parents=True)
    write(growing.attempt(2).logs / "node1.rank0.out", "second\n")
    told = json.loads(process.stdout.readline())
    assert (told["attempt"], told["text"]) == (2, "second")


def test_following_a_run_that_has_not_begun_waits_for_it(growing, here, spawn):
    logs = growing.attempt(1).logs
    process = spawn(*LOGS, "-f", "grow-aaaa", "--fold", env=ENVIRON, cwd=here)
    for rank in (0, 1):
        write(logs / f"node1.rank{rank}.out", "hello\n")
    growing.write_verdict({"state": "SUCCEEDED", "summary": "", "ended": 1.0})
    assert sorted(process.communicate(timeout=120)[0].split()) in (
        ["[0-1]", "hello"],
        ["hello", "hello", "node1:0", "node1:1"],
    )


def test_a_log_that_was_cut_short_is_read_from_its_beginning(growing, here, spawn):
    log = growing.attempt(1).logs / "node1.rank0.out"
    write(log, "a long line before\n")
    process = spawn(*LOGS, "-f", "grow-aaaa", env=ENVIRON, cwd=here)
    assert process.stdout.readline() == "node1:0 a long line before\n"
    log.write_text("anew\n")
    assert process.stdout.readline() == "node1:0 anew\n"
