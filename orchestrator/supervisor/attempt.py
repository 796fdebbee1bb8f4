"""One attempt: start an agent on every host, start the ranks, see the first failure, end everything."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Any

from orchestrator.launchers import make_launcher
from orchestrator.launchers.base import NO_BUNDLE
from orchestrator.rundir import write_json
from orchestrator.states import State
from orchestrator.supervisor import route
from orchestrator.supervisor.control import ControlServer, agent_config
from orchestrator.supervisor.ending import Ending, tail_of
from orchestrator.supervisor.host_state import HostState
from orchestrator.supervisor.log_store import LogStore
from orchestrator.supervisor.pushing import Pusher
from orchestrator.verdict import Verdict, judge, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir

_SSH_LOST = 255  # ssh's own exit code: the connection, not the command
_DRAIN_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


class Attempt:
    """Drives one attempt. Every order to an agent may be repeated, so a reconnection loses nothing.

    Args:
        plan: the launch plan.
        run_dir: the run's directory.
        number: which attempt; its bundle has been written.
    """

    def __init__(self, plan: LaunchPlan, run_dir: RunDir, number: int) -> None:
        self._plan = plan
        self._run_dir = run_dir
        self._dir: AttemptDir = run_dir.attempt(number)
        self._hosts = {host.name: HostState(host) for host in plan.hosts}
        self._by_alias = {state.plan.alias: state for state in self._hosts.values()}
        self._logs = LogStore(self._dir)
        self._token = secrets.token_hex(32)
        self._server = ControlServer(plan.run_id, self._token, frozenset(self._hosts), self)
        self._launcher = make_launcher(plan, self._dir, self._on_exit)
        self._pusher = Pusher(plan, run_dir, self._dir, self._launcher, self._on_host_failed)
        self._changed = asyncio.Event()
        self._start: dict[str, dict[str, Any]] = {}
        self._releasing = False
        self.ending: Ending | None = None

    async def run(self) -> Verdict:
        """Run the attempt to its end and judge it; nothing of it is left running afterwards."""
        port = await self._server.open(self._plan.control_port, local=self._plan.backend == "local")
        config = agent_config(self._plan, self._dir, port, self._token)
        write_json(self._dir.control_file, config, 0o600)
        clock = asyncio.create_task(self._keep_time())
        try:
            await self._launcher.open(port)
            await self._pusher.start(list(self._plan.hosts))
            await self._start_ranks()
            await self._until(lambda: all(state.finished_well for state in self._hosts.values()))
        finally:
            self.end(State.SUCCEEDED, "every rank has ended")
            await self._wind_up()
            clock.cancel()
        return self._judge()

    def end(self, state: State, reason: str) -> None:
        """Decide how the attempt ends; the first decision counts and reaches every agent at once."""
        if self.ending is not None:
            return
        self.ending = Ending(state, reason)
        self._run_dir.add_event("ending", state=state, reason=reason)
        if state is not State.SUCCEEDED:
            self._run_dir.write_status(State.STOPPING, reason)
            self._broadcast(self._stop_order())
        self._changed.set()

    def _stop_order(self) -> dict[str, Any]:
        reason = self.ending.reason if self.ending else ""
        return {"t": "stop", "reason": reason, "grace": self._plan.grace}

    def _broadcast(self, message: dict[str, Any]) -> None:
        for name in self._hosts:
            self._server.send(name, message)

    async def _until(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `done()` or the attempt is ending or time is up; tell whether it was `done()`."""
        return await self._wait(lambda: done() or self.ending is not None, seconds) and done()

    async def _wait(self, done: Callable[[], bool], seconds: float | None) -> bool:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not done():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return done()
        return True

    # -- starting -------------------------------------------------------------------------------

    async def _start_ranks(self) -> None:
        if not await self._until(self._all_ready, self._plan.start_timeout):
            self._blame_silent_hosts()
        if self.ending is None and not self._has_problems():
            found = await self._find_route()
            if found is not None and self.ending is None:
                self._order_start(found)

    def _all_ready(self) -> bool:
        return all(state.ready is not None for state in self._hosts.values())

    def _blame_silent_hosts(self) -> None:
        if self.ending is not None:
            return
        for state in self._hosts.values():
            if state.ready is None:
                state.fail(f"no word from its agent in {self._plan.start_timeout:g} s")
        self.end(State.FAILED, "not every host has started")

    def _has_problems(self) -> bool:
        for state in self._hosts.values():
            ready = state.ready or {}
            told = list(ready.get("problems", []))
            if isinstance(ready.get("port"), str):
                told.append(ready["port"])
            if told:
                state.fail("; ".join(told))
        failed = [state for state in self._hosts.values() if state.failure]
        if failed:
            self.end(State.FAILED, f"{failed[0].plan.name}: {failed[0].failure}")
        return bool(failed)

    async def _find_route(self) -> route.Route | None:
        master = next(iter(self._hosts.values()))
        port = int((master.ready or {}).get("port") or 0)
        own = route.loopback(self._plan, port)
        if own is not None:
            return own
        for address in route.candidates(self._plan, master):
            for state in self._hosts.values():
                state.route = None
            probe = {"t": "probe", "addresses": [address], "port": port, "timeout": route.PROBE_SECONDS}
            self._broadcast(probe)
            await self._until(self._all_probed, 2 * route.PROBE_SECONDS)
            if self._all_probed() and all(state.route["address"] for state in self._hosts.values() if state.route):
                names = {name: str((state.route or {}).get("interface", "")) for name, state in self._hosts.items()}
                return route.Route(address, port, names)
        self._blame_unreachable_master(master.plan.name, port)
        return None

    def _all_probed(self) -> bool:
        return all(state.route is not None for state in self._hosts.values())

    def _blame_unreachable_master(self, master: str, port: int) -> None:
        if self.ending is not None:
            return
        for name, state in self._hosts.items():
            if state.route is None or not state.route["address"]:
                why = "; ".join((state.route or {}).get("failures", [])) or "no answer"
                state.fail(f"cannot reach {master} on port {port} ({why}); set train.master_addr or train.interface")
        self.end(State.FAILED, f"not every host can reach the master {master}")

    def _order_start(self, found: route.Route) -> None:
        self._run_dir.add_event("start", master=found.address, port=found.port, interfaces=found.interfaces)
        self._run_dir.write_status(State.RUNNING)
        for name, state in self._hosts.items():
            self._start[name] = route.start_message(self._plan, state, found)
            self._server.send(name, self._start[name])

    # -- hearing --------------------------------------------------------------------------------

    def welcome(self, host: str) -> dict[str, Any]:
        """Return the first message to a host's agent: which bytes of its logs are here."""
        return {"t": "welcome", "have": self._logs.sizes(self._hosts[host].plan)}

    def on_connected(self, host: str) -> None:
        """Take note of a connection, and say again what has been ordered."""
        self._hosts[host].contact = time.monotonic()
        self._ping(host)
        if host in self._start:
            self._server.send(host, self._start[host])
        if self.ending is not None and self.ending.state is not State.SUCCEEDED:
            self._server.send(host, self._stop_order())
        if self._releasing:
            self._server.send(host, {"t": "release"})

    def on_message(self, host: str, message: dict[str, Any], payload: bytes) -> None:
        """Take what an agent says."""
        state = self._hosts[host]
        state.contact = time.monotonic()
        handler = _HANDLERS.get(str(message.get("t")))
        if handler is not None:
            handler(self, state, message, payload)
        self._changed.set()

    def _on_ready(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        if state.ready is None:
            self._run_dir.add_event("host_ready", host=state.plan.name, pid=message["pid"], keeper=message["keeper"])
        state.ready = message
        state.drained = False
        for record in message["ranks"]:
            self._take_rank(state, record)
        if message["launcher"] is not None:
            self._take_launcher(state, message["launcher"], time.time())
        if message["ended"]:
            self._take_end(state, [])

    def _on_pong(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        state.take_pong(message["sent"], message["now"], time.time())

    def _on_route(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        state.route = message

    def _on_started(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        state.started = True
        self._run_dir.add_event("launcher_started", host=state.plan.name, host_time=message["time"])

    def _on_rank(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        self._take_rank(state, message["record"])

    def _take_rank(self, state: HostState, record: dict[str, Any]) -> None:
        rank = int(record["rank"])
        if rank not in state.plan.ranks or state.ranks.get(rank) == record:
            return
        state.ranks[rank] = record
        if not (state.ready or {}).get("shared", True):
            self._logs.write_record(state.plan, record)
        self._run_dir.add_event(f"rank_{record['event']}", host=state.plan.name, **record_event(record))
        if record["event"] == "exit" and record["exit_code"] != 0:
            how = signal_name(record["signal"]) if record["signal"] else f"exit code {record['exit_code']}"
            self.end(State.FAILED, f"rank {rank} on {state.plan.name} ended: {how} {record['message']}".rstrip())

    def _on_launcher(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        self._take_launcher(state, message["code"], message["time"])

    def _take_launcher(self, state: HostState, code: int, when: float) -> None:
        if state.launcher_code is None:
            state.launcher_code = code
            state.launcher_time = when
            self._run_dir.add_event("launcher_exit", host=state.plan.name, code=code, host_time=when)
        if code != 0:
            self.end(State.FAILED, f"{self._plan.launcher} on {state.plan.name} ended with {code}")

    def _on_termed(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        self._run_dir.add_event("sigterm", host=state.plan.name, ranks=message["ranks"], host_time=message["time"])

    def _on_ended(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        self._take_end(state, message["left"])

    def _take_end(self, state: HostState, left: list[int]) -> None:
        if not state.ended:
            self._run_dir.add_event("host_ended", host=state.plan.name, left=left)
        state.ended = True
        if self.ending is None and not state.finished_well:
            missing = [rank for rank in state.plan.ranks if rank not in state.ranks]
            self.end(State.FAILED, f"{state.plan.name} ended but its ranks {missing} never started")

    def _on_fault(self, state: HostState, message: dict[str, Any], _: bytes) -> None:
        self._on_host_failed(state.plan.alias, message["text"])

    def _on_drained(self, state: HostState, _message: dict[str, Any], _: bytes) -> None:
        state.drained = True

    def _on_log(self, state: HostState, message: dict[str, Any], payload: bytes) -> None:
        end = self._logs.write(state.plan, message, payload)
        if end is not None:
            self._server.send(state.plan.name, {"t": "kept", "file": message["file"], "end": end})

    def _on_exit(self, alias: str, code: int, words: str) -> None:
        """A host's command has ended; whether that is bad depends on what the host has said."""
        state = self._by_alias[alias]
        self._run_dir.add_event("command_exit", host=state.plan.name, code=code, words=words)
        if code == NO_BUNDLE and self._pusher.wants(state.plan):
            return
        state.command_ended = True
        self._changed.set()
        if self._releasing or state.ended:
            return
        if state.ready is None:
            self._on_host_failed(alias, f"its agent could not be started: {words or f'exit code {code}'}")
        elif code not in (_SSH_LOST, 0) and code > 0:
            self._on_host_failed(alias, f"its agent ended with {code}: {words}")

    def _on_host_failed(self, alias: str, why: str) -> None:
        state = self._by_alias[alias]
        state.fail(why)
        state.command_ended = state.command_ended or not self._server.is_connected(state.plan.name)
        self.end(State.FAILED, f"{state.plan.name}: {why}")
        self._changed.set()

    # -- keeping time ---------------------------------------------------------------------------

    def _ping(self, host: str) -> None:
        self._server.send(host, {"t": "ping", "sent": time.time()})

    async def _keep_time(self) -> None:
        """Ping every agent often enough for the lease, and see which have gone silent."""
        while True:
            await asyncio.sleep(min(5.0, self._plan.lease / 6))
            for name, state in self._hosts.items():
                self._ping(name)
                silence = time.monotonic() - state.contact
                if state.ready is not None and not state.ended and silence > self._plan.lease:
                    state.command_ended = True
                    self._on_host_failed(state.plan.alias, f"lost: no word from it for {silence:.0f} s")

    # -- ending ---------------------------------------------------------------------------------

    async def _wind_up(self) -> None:
        """See every host end, get its logs, release it, close the launcher."""
        patience = self._plan.grace + self._plan.lease + 5
        await self._wait(lambda: all(map(self._is_over, self._hosts.values())), patience)
        for state in self._hosts.values():
            if state.ready is not None and not state.ended:
                state.fail("out of reach at the end; its ranks end by themselves when the lease runs out")
        await self._wait(lambda: all(map(self._is_drained, self._hosts.values())), _DRAIN_SECONDS)
        self._releasing = True
        self._broadcast({"t": "release"})
        await self._wait(lambda: all(state.command_ended for state in self._hosts.values()), _CLOSE_SECONDS)
        await self._pusher.close()
        await self._launcher.close()
        await self._server.close()

    def _is_over(self, state: HostState) -> bool:
        return state.ended or state.command_ended

    def _is_drained(self, state: HostState) -> bool:
        return state.drained or not state.ended or not self._server.is_connected(state.plan.name)

    def _judge(self) -> Verdict:
        ending = self.ending or Ending(State.FAILED, "the supervisor ended early")
        hosts = tuple(
            state.evidence(tail_of(self._dir.logs / f"{state.plan.file_name}.log"))
            for state in self._hosts.values()
        )
        return judge(ending.state, ending.reason, hosts)


def record_event(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a rank's record that the event log keeps."""
    names = ("rank", "pid", "exit_code", "signal", "message")
    return {name: record[name] for name in names if name in record} | {"host_time": record["time"]}


_HANDLERS: dict[str, Callable[[Attempt, HostState, dict[str, Any], bytes], None]] = {
    "ready": Attempt._on_ready,  # noqa: SLF001 - the table of this very class
    "pong": Attempt._on_pong,  # noqa: SLF001
    "route": Attempt._on_route,  # noqa: SLF001
    "started": Attempt._on_started,  # noqa: SLF001
    "rank": Attempt._on_rank,  # noqa: SLF001
    "launcher": Attempt._on_launcher,  # noqa: SLF001
    "termed": Attempt._on_termed,  # noqa: SLF001
    "ended": Attempt._on_ended,  # noqa: SLF001
    "fault": Attempt._on_fault,  # noqa: SLF001
    "drained": Attempt._on_drained,  # noqa: SLF001
    "log": Attempt._on_log,  # noqa: SLF001
}
