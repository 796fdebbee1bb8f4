"""A process that ends in the moment in which it is told to."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from orchestrator.launchers.base import end_process


def wait_for_zombie(pid):
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)


def test_its_own_exit_code_is_what_is_seen(monkeypatch, caplog):
    real, late = os.waitpid, threading.Event()

    def slow(pid, options):
        late.wait(120)  # asyncio's watcher comes late
        return real(pid, options)

    async def end():
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3", start_new_session=True)
        wait_for_zombie(process.pid)
        threading.Timer(0.1, late.set).start()
        await end_process(process, seconds=120)
        return process.returncode

    monkeypatch.setattr("os.waitpid", slow)
    assert asyncio.run(end()) == 3
    assert caplog.text == ""
