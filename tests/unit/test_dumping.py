"""Stacks of real processes, by the real py-spy and by faulthandler."""

from __future__ import annotations

import os
import shutil
import sys
import time

import pytest

from orchestrator.agent import dumping, flight
from orchestrator.monitor.stacks import where
from tests.asleep import await_sleep

STUCK = """
import time
def read_batch():
    print("there", flush=True)
    time.sleep(600)
read_batch()
"""
TOOL = dumping.find_tool(sys.executable, "")
needs_py_spy = pytest.mark.skipif(TOOL is None, reason="py-spy is not installed")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Have as much of it with py-spy and the recorder as with anything else."""
    monkeypatch.setattr(dumping, "_SECONDS", 120.0)
    monkeypatch.setattr(flight, "_SECONDS", 120.0)


def answers(dumper: dumping.Dumper, count: int) -> list[tuple[dict, bytes]]:
    found: list[tuple[dict, bytes]] = []
    deadline = time.monotonic() + 120
    while len(found) < count:
        assert time.monotonic() < deadline
        found += dumper.answers()
        time.sleep(0.02)
    return found


@needs_py_spy
def test_a_rank_is_dumped_below_the_shell_that_started_it(spawn, tmp_path):
    (tmp_path / "script.py").write_text(STUCK)
    shell = spawn("sh", "-c", f"{sys.executable} {tmp_path}/script.py; true")
    assert shell.stdout.readline() == "there\n"
    await_sleep(shell.pid, program="sh")
    await_sleep(*dumping.python_processes(shell.pid), program="python")
    dumper = dumping.Dumper(sys.executable, str(tmp_path / "given"))
    for _ in range(2):  # an order that comes again is done once
        dumper.order({"id": 1, "ranks": [3, 4]}, {3: shell.pid, 9: 1})
    ((message, payload),) = answers(dumper, 1)
    assert message == {
        "t": "dumped", "id": 1, "rank": 3, "how": "py-spy", "why": "", "lacks": False, "flight": False,
    }  # fmt: skip
    place = where(payload.decode())
    assert (str(place), place.waiting) == ("script.py:5 read_batch", False)
    assert payload.startswith(f"# pid {shell.pid}, state S".encode())
    assert b"\n# line 5: time.sleep(600)\n" in payload


def test_what_runs_no_python_says_so(spawn, tmp_path):
    sleeper = spawn("sleep", "600")
    text, why = dumping.dump(shutil.which("false"), sleeper.pid)
    assert (text, why) == ("", "it runs no Python")


def test_a_tool_that_fails_is_quoted(python, tmp_path):
    stuck = python(STUCK)
    stuck.stdout.readline()
    refusing = tmp_path / "py-spy"
    refusing.write_text("#!/bin/sh\necho 'Error: Permission Denied: Try running again' >&2\nexit 1\n")
    refusing.chmod(0o755)
    assert dumping.dump(str(refusing), stuck.pid) == (
        "",
        "py-spy: Error: Permission Denied: Try running again",
    )


def test_a_host_without_the_tool_says_so_and_takes_the_supervisors(python, tmp_path, monkeypatch):
    stuck = python(STUCK)
    stuck.stdout.readline()
    bare = tmp_path / "bin/python"
    bare.parent.mkdir()
    bare.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(bare.parent))
    dumper = dumping.Dumper(str(bare), str(tmp_path / "given"))
    dumper.order({"id": 1, "ranks": [0]}, {0: stuck.pid})
    ((message, payload),) = answers(dumper, 1)
    assert (message["how"], message["lacks"]) == ("", True)
    assert "pip install py-spy" in message["why"]
    assert payload.startswith(b"# pid ")
    script = b"#!/bin/sh\n/bin/echo Thread 1\n"
    import zlib

    dumper.take_tool({"machine": "another", "payload": zlib.compress(b"no")})
    assert not (tmp_path / "given").exists()
    dumper.take_tool({"machine": os.uname().machine, "payload": zlib.compress(script)})
    dumper.order({"id": 2, "ranks": [0]}, {0: stuck.pid})
    ((message, payload),) = answers(dumper, 1)
    assert (message["how"], payload.endswith(b"Thread 1\n")) == ("py-spy", True)


RECORDS = """
import os, sys, time
pipe, file = sys.argv[1:]
os.mkfifo(pipe)
handle = os.open(pipe, os.O_RDWR)
print("there", flush=True)
while os.read(handle, 128):
    with open(file, "wb") as out:
        for piece in (b"half of it", b" and the rest."):
            out.write(piece)
            out.flush()
            time.sleep(0.1)
"""


@needs_py_spy
def test_a_flight_recorder_is_asked_and_waited_for_but_not_too_often(spawn, tmp_path):
    files = tmp_path / "dumps/a.rank3.fr.3"
    files.parent.mkdir()
    (tmp_path / "script.py").write_text(RECORDS)
    rank = spawn(sys.executable, f"{tmp_path}/script.py", f"{tmp_path}/fr3.3.pipe", str(files))
    assert rank.stdout.readline() == "there\n"
    config = {"python": sys.executable, "dumps": str(files.parent)}
    dumper = dumping.Dumper.of(config, "a", str(tmp_path))
    for order in range(5):
        dumper.order({"id": order, "ranks": [3]}, {3: rank.pid})
        ((message, _),) = answers(dumper, 1)
        assert message["flight"] == (order < 4)
        assert files.read_bytes() == b"half of it and the rest."


def test_a_recorder_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fr3.3.pipe")
    recorder = flight.Recorder(str(tmp_path), str(tmp_path / "a.rank3.fr."), 3)
    assert not recorder.ask()
    assert not flight.Recorder(str(tmp_path), str(tmp_path / "a.rank4.fr."), 4).ask()


def test_a_recorder_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(flight, "_SECONDS", 0.2)
    os.mkfifo(tmp_path / "fr3.3.pipe")
    reader = os.open(tmp_path / "fr3.3.pipe", os.O_RDONLY | os.O_NONBLOCK)
    recorder = flight.Recorder(str(tmp_path), str(tmp_path / "a.rank3.fr."), 3)
    assert recorder.ask()
    assert not recorder.wait()
    os.close(reader)
