"""Simulated hosts: `node.sh` for each, as a process of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

from orchestrator.launchers.base import LastWords, OnExit, end_process, read_lines
from orchestrator.render import node_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir

_HEAR_SECONDS = 3.0  # for what an agent that has ended said last


class LocalLauncher:
    """Starts every host's agent on this machine."""

    def __init__(self, plan: LaunchPlan, attempt: AttemptDir, on_exit: OnExit) -> None:
        del plan
        self._attempt = attempt
        self._on_exit = on_exit
        self._words = LastWords(attempt)
        self._watchers: list[asyncio.Task[None]] = []
        self._processes: list[asyncio.subprocess.Process] = []

    async def open(self, port: int) -> None:
        """Nothing to get ready: agents on this machine reach any port of it."""

    async def start(self, hosts: Sequence[PlannedHost]) -> None:
        """Start a process per host, each in a session of its own."""
        for host in hosts:
            process = await asyncio.create_subprocess_exec(
                *node_command(str(self._attempt.path), host.alias),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            self._processes.append(process)
            self._watchers.append(asyncio.create_task(self._watch(host.alias, process)))

    async def _watch(self, alias: str, process: asyncio.subprocess.Process) -> None:
        await read_lines(process.stdout, lambda line: self._words.add(alias, line))
        code = await process.wait()
        self._on_exit(alias, code, self._words.of(alias))

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Never needed: simulated hosts share this machine's disk."""
        del host, archive
        return "a simulated host sees the run directory by itself"

    async def close(self) -> None:
        """End the agents that have not ended by themselves, and what lines of train.setup have left."""
        await asyncio.gather(*(end_process(process) for process in self._processes))
        heard = zip(self._watchers, self._processes, strict=True)
        await asyncio.gather(*(_hear_out(watcher, process) for watcher, process in heard))
        self._words.close()


async def _hear_out(watcher: asyncio.Task[None], process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a host's output; whoever else holds it (a line that ends in `&`) is killed."""
    _, late = await asyncio.wait([watcher], timeout=_HEAR_SECONDS)
    if late:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # somebody in a session of its own: it is left alone
        await asyncio.wait_for(watcher, _HEAR_SECONDS)
