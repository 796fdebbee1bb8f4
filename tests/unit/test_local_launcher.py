"""Simulated hosts whose start script leaves something behind that holds its output."""

from __future__ import annotations

import asyncio
import os

from orchestrator.launchers.local import LocalLauncher
from orchestrator.rundir import AttemptDir
from tests import samples
from tests.testbed import processes


def test_what_a_line_of_setup_leaves_in_the_background_goes_with_the_launcher(tmp_path):
    seconds = f"4000.{os.getpid()}"
    attempt = AttemptDir(tmp_path)
    attempt.rendered.mkdir()
    (attempt.rendered / "node.sh").write_text(f"sleep {seconds} & exit 3")
    told = []

    async def run():
        launcher = LocalLauncher(samples.plan(), attempt, lambda *end: told.append(end))
        await launcher.start(samples.plan().hosts[:1])
        while launcher._processes[0].returncode is None or not asleep(seconds):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)
        await asyncio.wait_for(launcher.close(), 60)

    asyncio.run(run())
    assert asleep(seconds) == []
    assert [code for _, code, _ in told] == [3]


def asleep(seconds):
    return [process for process in processes.everything() if process.argv[-1] == seconds]
