"""The ends of logs as a diagnosis reads them."""

from __future__ import annotations

import os
import random

import pytest

from orchestrator.diagnose import diagnose
from orchestrator.diagnose.text import crash_frame, raised, read_end, text_of
from tests.made_run import made_run


def test_lines_are_numbered_and_cleaned_as_a_terminal_shows_them(tmp_path):
    log = tmp_path / "logs/a.rank0.err"
    log.parent.mkdir()
    log.write_bytes(b"first\n10%\r20%\r30%\n\n\x1b[31m[rank0]: red\x1b[0m \xff\nlast")
    text = read_end("error", log, tmp_path)
    shown = [(line.number, line.text) for line in text.lines]
    assert shown == [(1, "first"), (2, "30%"), (4, "red �"), (5, "last")]
    assert text.file == "logs/a.rank0.err"
    assert [text.line_at(text.joined.index(word)).number for word in ("first", "red", "last")] == [1, 4, 5]


def test_of_a_long_log_the_end_is_read_with_its_numbers(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(1, 100_001)))
    lines = read_end("error", log, tmp_path).lines
    assert 1000 < len(lines) < 50_000
    assert all(line.text == f"line {line.number}" for line in lines)
    assert lines[-1].number == 100_000
    assert lines[-1].end == log.stat().st_size


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    assert read_end("error", tmp_path / "gone", tmp_path).lines == ()


CAUSE = "Traceback (most recent call last):\n  a\nOSError: disk\n"
BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
EFFECT = "Traceback (most recent call last):\n  b\nRuntimeError: two\nlines\n"
GONE = "Exception ignored in: <x>\nTraceback (most recent call last):\n  c\nAttributeError: z\n"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        (CAUSE, "Traceback (most recent call last):", "OSError: disk"),
        (CAUSE + BECAUSE + EFFECT, "Traceback (most recent call last):", "lines"),
        (EFFECT + "more\n" + CAUSE + GONE, "Traceback (most recent call last):", "OSError: disk"),
        (CAUSE + "[W1121 10:00:00 x.cpp] warning\n", "Traceback (most recent call last):", "OSError: disk"),
    ],
)
def test_the_exception_a_rank_ended_with_is_found_with_those_that_led_to_it(text, first, last):
    lines = raised(text_of("error", text)).lines
    assert (lines[0].text, lines[-1].text) == (first, last)
    assert ("OSError: disk" in [line.text for line in lines]) == ("OSError" in text)


def test_words_without_a_traceback_raised_nothing():
    assert raised(text_of("error", "just words\nand more")).lines == ()


CRASH = """Fatal Python error: Segmentation fault

Current thread 0x00007f12 (most recent call first):
  File "/opt/venv/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 5 in forward
  File "/home/user/train.py", line 57 in step
  File "/home/user/train.py", line 99 in <module>
"""


def test_of_a_crash_the_users_own_line_is_shown():
    assert crash_frame(text_of("error", CRASH)).text.strip() == 'File "/home/user/train.py", line 57 in step'
    assert crash_frame(text_of("error", "Fatal Python error: Aborted\n")) is None


@pytest.mark.parametrize("seed", range(3))
def test_no_log_is_too_strange(tmp_path, seed):
    run = made_run(tmp_path, failing=3)
    log = run.path / "attempt-1/logs/node-1.rank3.err"
    numbers = random.Random(seed)
    words = [
        b"Traceback (most recent call last):",
        b"\r",
        b"\n",
        b"\x1b[31m",
        b"\xff" * 9,
        b"[rank3]: ",
        b"x" * 9999,
    ]
    words += [b"CUDA out of memory", b"Error: ", b'File "a", line 1', b"\n\n", bytes(range(256))]
    log.write_bytes(b"".join(numbers.choice(words) for _ in range(5000)))
    os.truncate(run.path / "attempt-1/logs/node-1.times", 7)
    assert diagnose(run).first.rank == 3
