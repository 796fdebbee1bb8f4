"""Start the hosts, and send the run directory to those that do not share it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from orchestrator.bundle import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.launchers.base import Launcher
    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir, RunDir

_AT_ONCE = 16  # pushes; a jump host's sshd starts to refuse at 10 unauthenticated ones (MaxStartups)
_GATHER_SECONDS = 0.1


class Pusher:
    """Starts hosts straight away where the disk may be shared; hosts that say it is not get a copy.

    Args:
        on_failed: called with a host's alias and what went wrong.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        run_dir: RunDir,
        attempt: AttemptDir,
        launcher: Launcher,
        on_failed: Callable[[str, str], None],
    ) -> None:
        self._plan = plan
        self._run_dir = run_dir
        self._attempt = attempt
        self._launcher = launcher
        self._on_failed = on_failed
        self._waiting: list[PlannedHost] = []
        self._done: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self, hosts: list[PlannedHost]) -> None:
        """Start the command on every host, after a push where the job file says nothing is shared."""
        if self._plan.shared_disk is False:
            await self._push_all(hosts)
        else:
            await self._launcher.start(hosts)

    def wants(self, host: PlannedHost) -> bool:
        """Take a host that has no bundle; False when it should have one, so that it counts as failed."""
        if self._plan.shared_disk is True or host.alias in self._done:
            return False
        self._done.add(host.alias)
        self._waiting.append(host)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        return True

    async def _serve(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            hosts, self._waiting = self._waiting, []
            await self._push_all(hosts)

    async def _push_all(self, hosts: list[PlannedHost]) -> None:
        archive = pack(self._run_dir, self._attempt)
        places = asyncio.Semaphore(min(_AT_ONCE, self._plan.ssh.fanout or _AT_ONCE))

        async def push(host: PlannedHost) -> PlannedHost | None:
            async with places:
                failure = await self._launcher.push(host, archive)
            if failure:
                self._on_failed(host.alias, f"the run directory could not be sent: {failure}")
            return None if failure else host

        ready = [host for host in await asyncio.gather(*map(push, hosts)) if host is not None]
        self._done.update(host.alias for host in ready)
        if ready:
            await self._launcher.start(ready)

    async def close(self) -> None:
        """Give up what is still being sent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
