"""What all agents have said, in one place: hears them, answers them, and sees the first failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import write_json
from orchestrator.states import State
from orchestrator.supervisor.control import ControlServer
from orchestrator.supervisor.dump_box import DumpBox
from orchestrator.supervisor.ending import Ending
from orchestrator.supervisor.host_state import HostState
from orchestrator.supervisor.log_store import LogStore
from orchestrator.verdict.judge import signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import AttemptDir, RunDir


class Board:
    """The hosts of one attempt. Every order may be repeated, so a reconnection loses nothing.

    Attributes:
        hosts: state by host name, in rank order.
        ending: the first decision to end the attempt, once there is one.
        orders: the start order of each host, once given.
        releasing: the hosts are being let go.
        dumps: the stacks of ranks that agents have sent.
        abort: ranks that leave their stacks when they are stopped (see dumping.collect_dumps).
    """

    def __init__(self, plan: LaunchPlan, run_dir: RunDir, attempt: AttemptDir, token: str) -> None:
        self._plan = plan
        self._run_dir = run_dir
        self._attempt = attempt
        self._logs = LogStore(attempt)
        self._changed = asyncio.Event()
        self.hosts = {host.name: HostState(host) for host in plan.hosts}
        self.server = ControlServer(plan.run_id, token, frozenset(self.hosts), self)
        self.orders: dict[str, dict[str, Any]] = {}
        self.ending: Ending | None = None
        self.dumps = DumpBox(attempt)
        self.abort: set[int] = set()
        self.releasing = False
        self._clocks_changed = False

    # -- deciding and waiting -------------------------------------------------------------------

    def end(self, state: State, reason: str) -> None:
        """Decide how the attempt ends; the first decision counts and reaches every agent at once."""
        if self.ending is not None:
            return
        self.ending = Ending(state, reason)
        self.event("ending", state=state, reason=reason)
        if state is not State.SUCCEEDED:
            self._run_dir.write_status(State.STOPPING, reason)
            self.broadcast(self._stop_order())
        self._changed.set()

    def _stop_order(self) -> dict[str, Any]:
        reason = self.ending.reason if self.ending else ""
        return {"t": "stop", "reason": reason, "grace": self._plan.grace, "abort": sorted(self.abort)}

    def fail_host(self, state: HostState, why: str, *, lost: bool = False) -> None:
        """Note that something is wrong with a host itself, and end the attempt for it."""
        if not state.failure:
            self.event("host_failed", host=state.plan.name, why=why)
        state.fail(why, lost=lost)
        self.end(State.FAILED, f"{state.plan.name}: {why}")
        self._changed.set()

    def broadcast(self, message: dict[str, Any]) -> None:
        """Send a message to every agent that is connected."""
        for name in self.hosts:
            self.server.send(name, message)

    def give_start(self, orders: dict[str, dict[str, Any]]) -> None:
        """Order every host to start its ranks; who sees a rank sees a run that runs."""
        self._run_dir.write_status(State.RUNNING)
        self.orders = orders
        for name, order in orders.items():
            self.server.send(name, order)

    def describe_hosts(self) -> None:
        """Keep what the hosts have said of themselves, and say where their packages differ."""
        told = {name: state.ready for name, state in self.hosts.items() if state.ready is not None}
        kept = ("hostname", "addresses", "gpus", "devices", "versions")
        with contextlib.suppress(OSError):
            write_json(
                self._attempt.hosts_file,
                {name: {k: ready.get(k) for k in kept} for name, ready in told.items()},
            )
        self.keep_clocks()
        versions = {name: ready["versions"] for name, ready in told.items()}
        for package, by_version in differing(versions).items():
            self.event("versions_differ", package=package, hosts=by_version)

    def release(self) -> None:
        """Let every agent go."""
        self.releasing = True
        self.broadcast({"t": "release"})

    def event(self, name: str, **details: Any) -> None:
        """Add an event to the run's log of them."""
        self._run_dir.add_event(name, **details)

    def wake(self) -> None:
        """Have every waiter look again."""
        self._changed.set()

    async def until(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `done()` or the attempt is ending or time is up; tell whether it was `done()`."""
        return await self.wait(lambda: done() or self.ending is not None, seconds) and done()

    async def wait(self, done: Callable[[], bool], seconds: float | None) -> bool:
        """Wait until `done()`, whatever else happens; tell whether it was in time."""
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

    async def keep_time(self) -> None:
        """Ping every agent often enough for the lease, and see which have gone silent; runs for ever."""
        while True:
            await asyncio.sleep(min(5.0, self._plan.lease / 6))
            self.keep_clocks()
            for name, state in self.hosts.items():
                self._ping(name)
                silence = time.monotonic() - state.contact
                if state.ready is not None and not state.ended and silence > self._plan.lease:
                    state.command_ended = True
                    self.fail_host(state, f"lost: no word from it for {silence:.0f} s", lost=True)

    def _ping(self, host: str) -> None:
        self.server.send(host, {"t": "ping", "sent": time.time()})

    # -- hearing (control.Listener) ---------------------------------------------------------------

    def welcome(self, host: str) -> dict[str, Any]:
        """Return the first message to a host's agent: which bytes of its logs are here."""
        return {"t": "welcome", "have": self._logs.sizes(self.hosts[host].plan)}

    def on_connected(self, host: str) -> None:
        """Take note of a connection, and say again what has been ordered."""
        self.hosts[host].contact = time.monotonic()
        self._ping(host)
        if host in self.orders:
            self.server.send(host, self.orders[host])
        if self.ending is not None and self.ending.state is not State.SUCCEEDED:
            self.server.send(host, self._stop_order())
        if self.releasing:
            self.server.send(host, {"t": "release"})

    def on_message(self, host: str, message: dict[str, Any], payload: bytes) -> None:
        """Take what an agent says; a word this version does not know is passed over."""
        state = self.hosts[host]
        state.contact = time.monotonic()
        if message.get("t") == "log":
            self._on_log(state, message, payload)
            return
        if message.get("t") == "dumped":
            self.dumps.take(state.plan, message, payload)
        hear = getattr(self, f"_on_{message.get('t')}", None)
        if hear is not None:
            hear(state, message)
        self._changed.set()

    def _on_log(self, state: HostState, message: dict[str, Any], payload: bytes) -> None:
        end = self._logs.write(state.plan, message, payload)
        if end is None:
            return
        if not state.kept:  # what else has come with it is confirmed with it
            asyncio.get_running_loop().call_soon(self._confirm, state)
        state.kept[message["file"]] = end

    def _confirm(self, state: HostState) -> None:
        ends, state.kept = state.kept, {}
        self.server.send(state.plan.name, {"t": "kept", "ends": ends})

    def _on_ready(self, state: HostState, message: dict[str, Any]) -> None:
        if state.ready is None:
            pids = {name: message[name] for name in ("pid", "keeper")}
            self.event("host_ready", host=state.plan.name, shared=message["shared"], **pids)
        state.ready = message
        state.drained = False
        state.started = state.started or message["started"]
        for record in message["ranks"]:
            self._take_rank(state, record)
        if message["launcher"] is not None:
            known = {"code": message["launcher"], "told": message["launcher_told"]}
            self._on_launcher(state, known | {"time": time.time() + state.offset})
        if message["ended"]:
            self._on_ended(state, {"left": []})

    def _on_pong(self, state: HostState, message: dict[str, Any]) -> None:
        if state.take_pong(message["sent"], message["now"], time.time()):
            self._clocks_changed = True

    def keep_clocks(self) -> None:
        """Write down how far each host's clock is off, where that is known better than before."""
        if not self._clocks_changed:
            return
        self._clocks_changed = False
        known = {name: state.clock for name, state in self.hosts.items() if state.clock is not None}
        with contextlib.suppress(OSError):
            write_json(self._attempt.clocks_file, known)

    def _on_route(self, state: HostState, message: dict[str, Any]) -> None:
        state.route = message

    def _on_started(self, state: HostState, message: dict[str, Any]) -> None:
        state.started = True
        self.event("launcher_started", host=state.plan.name, host_time=message["time"])

    def _on_rank(self, state: HostState, message: dict[str, Any]) -> None:
        self._take_rank(state, message["record"])

    def _take_rank(self, state: HostState, record: dict[str, Any]) -> None:
        rank = int(record["rank"])
        if rank not in state.plan.ranks or state.ranks.get(rank) == record:
            return
        state.ranks[rank] = record
        if not (state.ready or {}).get("shared", True):
            self._logs.write_record(state.plan, record)
        self.event(f"rank_{record['event']}", host=state.plan.name, **_for_event(record))
        if record["event"] == "exit" and record["exit_code"] != 0:
            how = signal_name(record["signal"]) if record["signal"] else f"exit code {record['exit_code']}"
            said = f": {record['message']}" if record["message"] else ""
            self.end(State.FAILED, f"rank {rank} on {state.plan.name} ended, {how}{said}")

    def _on_launcher(self, state: HostState, message: dict[str, Any]) -> None:
        code = int(message["code"])
        if state.launcher_code is None:
            state.launcher_code, state.launcher_time = code, message["time"]
            state.launcher_told = message["told"]
            self.event("launcher_exit", host=state.plan.name, code=code, host_time=message["time"])
        if code != 0:
            self.end(State.FAILED, f"{self._plan.launcher} on {state.plan.name} ended with {code}")

    def _on_termed(self, state: HostState, message: dict[str, Any]) -> None:
        self.event("sigterm", host=state.plan.name, ranks=message["ranks"], host_time=message["time"])

    def _on_ended(self, state: HostState, message: dict[str, Any]) -> None:
        if not state.ended:
            self.event("host_ended", host=state.plan.name, left=message["left"])
        state.ended = True
        if self.ending is None and not state.finished_well:
            missing = [rank for rank in state.plan.ranks if rank not in state.ranks]
            self.end(State.FAILED, f"{state.plan.name} ended but its ranks {missing} never started")

    def _on_fault(self, state: HostState, message: dict[str, Any]) -> None:
        self.fail_host(state, message["text"])

    def _on_drained(self, state: HostState, message: dict[str, Any]) -> None:
        del message
        state.drained = True


def differing(versions: dict[str, dict[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Return the hosts by version, for every package of which not all hosts have the same.

    Args:
        versions: by host, then by package; a package that a host lacks is absent.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for package in sorted({package for of_host in versions.values() for package in of_host}):
        by_version: dict[str, list[str]] = {}
        for host, of_host in versions.items():
            by_version.setdefault(of_host.get(package, "none"), []).append(host)
        if len(by_version) > 1:
            found[package] = by_version
    return found


def _for_event(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a rank's record that the event log keeps."""
    names = ("rank", "pid", "exit_code", "signal", "message")
    return {name: record[name] for name in names if name in record} | {"host_time": record["time"]}
