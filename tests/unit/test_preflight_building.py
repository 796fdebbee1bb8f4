"""The lock of a builder: taken away with what held it, and left where it is somebody else's."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from orchestrator.preflight.programs import building

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """\
import os, sys, time
lock = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)
time.sleep(300)
"""


def watched(lock: Path, seconds: float, code: str = HOLDER) -> int | None:
    words = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(words, start_new_session=True) as process:
        return building._watched(process, seconds, str(lock))


def test_the_lock_of_a_builder_that_was_ended_or_died_is_taken_away(tmp_path):
    lock = tmp_path / "lock"
    assert watched(lock, 3) is None
    assert not lock.exists()
    assert watched(lock, 300, HOLDER.replace("sleep(300)", "sleep(4); os.kill(os.getpid(), 9)")) == -9
    assert not lock.exists()


def test_a_lock_that_somebody_else_took_meanwhile_stays(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    assert watched(lock, 1, "import time; time.sleep(300)") is None
    assert lock.exists()


def test_an_ops_program_that_is_told_to_end_takes_its_lock_along(tmp_path):
    """The signal comes while a builder holds the lock."""
    lock = tmp_path / "lock"
    code = f"""
import signal, subprocess, sys
from orchestrator.preflight.programs import building, ops
signal.signal(signal.SIGTERM, ops._end)
process = subprocess.Popen([sys.executable, "-c", {HOLDER!r}, {str(lock)!r}], start_new_session=True)
building._watched(process, 300, {str(lock)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code]) as told:
        try:
            deadline = time.monotonic() + 120
            while not lock.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert lock.exists()
            told.terminate()
            assert told.wait(120) == 128 + 15
        finally:
            told.kill()
    assert not lock.exists()
