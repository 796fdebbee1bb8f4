"""paramiko, for machines without pdsh: one connection per host, for the push and for the command."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from orchestrator.launchers.base import LastWords, OnExit
from orchestrator.launchers.openssh import unpack_command
from orchestrator.launchers.remote import Remote, RemoteError
from orchestrator.render import node_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir

_CONNECTING = 8  # at once: sshd, of a jump host too, refuses from the tenth unauthenticated on (MaxStartups)


class SshLauncher:
    """Starts every host's agent over a connection of its own, in a thread per host."""

    def __init__(self, plan: LaunchPlan, attempt: AttemptDir, on_exit: OnExit) -> None:
        self._plan = plan
        self._attempt = attempt
        self._on_exit = on_exit
        self._words = LastWords(attempt)
        self._threads = ThreadPoolExecutor(max_workers=2 * len(plan.hosts))
        self._connecting = asyncio.Semaphore(plan.ssh.fanout or _CONNECTING)
        self._remotes: dict[str, Remote] = {}
        self._port = 0
        self._closed = False
        self._watchers: list[asyncio.Task[None]] = []

    async def open(self, port: int) -> None:
        """Remember the control port, to forward it back over each connection."""
        self._port = port

    async def start(self, hosts: Sequence[PlannedHost]) -> None:
        """Connect to these hosts and run the command on each; returns without waiting."""
        self._watchers += [asyncio.create_task(self._run(host)) for host in hosts]

    async def _run(self, host: PlannedHost) -> None:
        loop = asyncio.get_running_loop()
        command = shlex.join(node_command(str(self._attempt.path), host.alias))

        def take_line(line: str) -> None:
            loop.call_soon_threadsafe(self._words.add, host.alias, line)

        try:
            remote = await self._connected(host)
            code = await loop.run_in_executor(self._threads, remote.run, command, take_line)
            words = self._words.of(host.alias)
        except RemoteError as error:
            code, words = 255, str(error)
            self._words.add(host.alias, words)
        except Exception as error:  # noqa: BLE001 - paramiko raises what it likes; a host must never just be silent
            code, words = 1, f"{type(error).__name__}: {error}"
            self._words.add(host.alias, traceback.format_exc())
        self._on_exit(host.alias, code, words)

    async def _connected(self, host: PlannedHost) -> Remote:
        """Return the host's connection; open it the first time."""
        if host.alias not in self._remotes:
            loop = asyncio.get_running_loop()
            async with self._connecting:
                self._refuse_when_closed()
                remote = await loop.run_in_executor(self._threads, Remote, self._attempt.rendered, host.alias)
                self._remotes[host.alias] = remote
                self._refuse_when_closed()
            await loop.run_in_executor(self._threads, self._remotes[host.alias].forward_back, self._port)
        return self._remotes[host.alias]

    def _refuse_when_closed(self) -> None:
        """Start nothing more on a host that has let us in after the end."""
        if self._closed:
            for remote in self._remotes.values():
                remote.close()
            raise RemoteError("it was too late: the launcher has been closed")

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Unpack the archive on the host, over the connection that is there already."""
        said: list[str] = []
        loop = asyncio.get_running_loop()
        try:
            remote = await self._connected(host)
        except RemoteError as error:
            return str(error)
        command = unpack_command(self._plan.run_dir)
        code = await loop.run_in_executor(self._threads, remote.run, command, said.append, archive)
        return "" if code == 0 else (" ".join(said) or f"ended with {code}")

    async def close(self) -> None:
        """Close every connection; a command still running there loses its input and output."""
        self._closed = True
        for remote in self._remotes.values():
            remote.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._watchers, return_exceptions=True), 10)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._words.close()
