"""One attempt: an agent on every host, ranks, the first failure or the end, and nothing left over."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Any

from orchestrator.launchers import make_launcher
from orchestrator.launchers.base import NO_BUNDLE
from orchestrator.rundir import read_json, write_json
from orchestrator.states import State
from orchestrator.supervisor.board import Board
from orchestrator.supervisor.control import agent_config
from orchestrator.supervisor.dumping import keep_aborted
from orchestrator.supervisor.ending import Ending, tail_of
from orchestrator.supervisor.pushing import Pusher
from orchestrator.supervisor.starting import Starting
from orchestrator.verdict.judge import Verdict, judge
from orchestrator.verdict.kept import evidence_document

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir
    from orchestrator.supervisor.host_state import HostState

_SSH_LOST = 255  # ssh's own exit code: the connection, not the command
_UNSEEN = "it does not see the run directory; choose a run_root that it sees"
_UNSEEN_OR_PUSH = f"{_UNSEEN}, or set cluster.shared_disk: auto"
_DRAIN_SECONDS = 60.0
_CLOSE_SECONDS = 5.0
_OPEN_PAUSE = 0.2


class Attempt:
    """Drives one attempt from start to verdict.

    An attempt whose `control.json` is there has been begun by a supervisor that is gone: its agents are
    still running and come back to the same port with the same token, so this one takes over.

    Args:
        plan: the launch plan.
        run_dir: the run's directory.
        number: which attempt; its bundle has been written.
        hosts_key: tells its hosts from those of another time (see Scheduler.key).
    """

    def __init__(self, plan: LaunchPlan, run_dir: RunDir, number: int, hosts_key: str = "") -> None:
        self._plan = plan
        self._run_dir = run_dir
        self._hosts_key = hosts_key
        self._dir: AttemptDir = run_dir.attempt(number)
        self._taken_over = read_json(self._dir.control_file)
        token = self._taken_over["token"] if self._taken_over else secrets.token_hex(32)
        self._token: str = token
        self.board = Board(plan, run_dir, self._dir, token)
        self._by_alias = {state.plan.alias: state for state in self.board.hosts.values()}
        self._launcher = make_launcher(plan, self._dir, self._on_exit)
        self._pusher = Pusher(plan, run_dir, self._dir, self._launcher, self._on_push_failed)

    async def run(self) -> Verdict:
        """Run the attempt to its end and judge it; nothing of it is left running afterwards."""
        clock = asyncio.create_task(self.board.keep_time())
        try:
            await self._start()
            await self.board.until(lambda: all(state.finished_well for state in self.board.hosts.values()))
            self.board.end(State.SUCCEEDED, "every rank has ended")
        finally:
            self.board.end(State.FAILED, "the supervisor failed")
            await self._wind_up()
            clock.cancel()
        return self._judge()

    async def _start(self) -> None:
        known: dict[str, Any] | None = self._taken_over
        wanted = known["port"] if known else self._plan.control_port
        port = await self._open(wanted)
        if known is None:
            config = agent_config(self._plan, self._dir, port, self._token, self._hosts_key)
            write_json(self._dir.control_file, config, 0o600)
            await self._launcher.open(port)
            await self._pusher.start(list(self._plan.hosts))
        starting = Starting(self._plan, self.board)
        await starting.run(self._plan.start_timeout if known is None else self._plan.lease)
        if known is not None and self.board.ending is None:
            self._run_dir.write_status(State.RUNNING)

    async def _open(self, port: int) -> int:
        """Listen for the agents; an earlier supervisor's port may be somebody else's for a while."""
        deadline = time.monotonic() + (self._plan.lease / 2 if self._taken_over is not None else 0.0)
        while True:
            try:
                return await self.board.server.open(port, local=self._plan.backend == "local")
            except OSError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_OPEN_PAUSE)

    def _on_exit(self, alias: str, code: int, words: str) -> None:
        """A host's command has ended; whether that is bad depends on what the host has said."""
        state = self._by_alias[alias]
        self.board.event("command_exit", host=state.plan.name, code=code, words=words)
        if code == NO_BUNDLE and self._pusher.wants(state.plan):
            return
        state.command_ended = True
        self.board.wake()
        if self.board.releasing or state.ended:
            return
        if state.ready is None:
            unseen = _UNSEEN if self._plan.backend == "slurm" else _UNSEEN_OR_PUSH
            said = unseen if code == NO_BUNDLE else words or f"exit code {code}"
            self.board.fail_host(state, f"its agent could not be started: {said}")
        elif code not in (_SSH_LOST, 0) and code > 0:
            self.board.fail_host(state, f"its agent ended with {code}: {words}")

    def _on_push_failed(self, alias: str, why: str) -> None:
        state = self._by_alias[alias]
        state.command_ended = True
        self.board.fail_host(state, why)

    async def _wind_up(self) -> None:
        """See every host end, get its logs, release it, close the launcher."""
        hosts = self.board.hosts.values()
        patience = self._plan.grace + self._plan.lease + 5
        await self.board.wait(lambda: all(map(self._is_over, hosts)), patience)
        for state in hosts:
            if state.ready is not None and not state.ended:
                state.fail("out of reach at the end; its ranks end by themselves when the lease runs out")
            elif state.ready is None and self._taken_over is not None:
                state.fail("its agent did not come back to the new supervisor")
        await self.board.wait(lambda: all(map(self._is_drained, hosts)), _DRAIN_SECONDS)
        self.board.keep_clocks()
        keep_aborted(self.board, self._dir)
        self.board.release()
        if self._taken_over is None:
            await self.board.wait(lambda: all(state.command_ended for state in hosts), _CLOSE_SECONDS)
        await self._pusher.close()
        await self._launcher.close()
        await self.board.server.close()
        self._dir.control_file.unlink(missing_ok=True)  # it holds the token

    def _is_over(self, state: HostState) -> bool:
        """Tell whether nothing more is to be heard of a host: it has ended, or it never had an agent."""
        never_came = state.ready is None and (state.command_ended or bool(state.failure))
        return state.ended or never_came or (bool(state.failure) and state.command_ended)

    def _is_drained(self, state: HostState) -> bool:
        return state.drained or not state.ended or not self.board.server.is_connected(state.plan.name)

    def _judge(self) -> Verdict:
        ending = self.board.ending or Ending(State.FAILED, "the supervisor ended early")
        hosts = tuple(
            state.evidence(tail_of(self._dir.logs / f"{state.plan.file_name}.log"))
            for state in self.board.hosts.values()
        )
        with contextlib.suppress(OSError):  # a full disk: the verdict has its place, this has not
            write_json(self._dir.evidence_file, evidence_document(ending.state, ending.reason, hosts))
        return judge(ending.state, ending.reason, hosts)
