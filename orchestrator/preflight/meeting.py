"""The submit side of finding out whether hosts reach one another, over the control channel of a run."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from orchestrator.supervisor import route
from orchestrator.supervisor.control import ControlServer
from orchestrator.supervisor.host_state import HostState

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan

_PINGS = 4  # the quickest tells the clock best
_PROBE_SECONDS = 3.0
_SIGN_SECONDS = 5.0


class Meeting:
    """Hears the hosts of a visit; asks clocks and the way to the master; lets hosts go.

    Attributes:
        hosts: what is known of each, by name, in rank order; `ready` with its addresses, `route` with how it
            reached each of the master's (`tried`).
        dismissed: everybody has been told to go.
    """

    def __init__(self, plan: LaunchPlan, token: str) -> None:
        self._plan = plan
        self.hosts = {host.name: HostState(host) for host in plan.hosts}
        self._pings = dict.fromkeys(self.hosts, 0)
        self._asked: set[str] = set()
        self._timed: set[str] = set()
        self._released: set[str] = set()
        self.dismissed = False
        self.server = ControlServer(plan.run_id, token, frozenset(self.hosts), self)

    @property
    def master(self) -> HostState:
        """Return the host of rank 0."""
        return next(iter(self.hosts.values()))

    @property
    def met(self) -> bool:
        """Tell whether any host is connected now."""
        return any(self.server.is_connected(name) for name in self.hosts)

    def timed(self, host: str) -> bool:
        """Tell whether a host has answered a ping."""
        return host in self._timed

    def welcome(self, host: str) -> dict[str, Any]:
        """Return the first message to a host."""
        del host
        return {"t": "welcome"}

    def on_connected(self, host: str) -> None:
        """Ask a host that has come for its time."""
        self._ping(host)

    def _ping(self, host: str) -> None:
        self._pings[host] += 1
        self._send_ping(host)

    def _send_ping(self, host: str) -> None:
        self.server.send(host, {"t": "ping", "sent": time.time()})

    async def give_signs(self) -> None:
        """Ping every host now and then; runs for ever.

        A host that hears nothing for half a lease takes us for gone: the master, whose port the others are to
        try, would not wait for one that is slow to come.
        """
        while True:
            await asyncio.sleep(min(_SIGN_SECONDS, self._plan.lease / 6))
            for name in self.hosts:
                self._send_ping(name)

    def on_message(self, host: str, message: dict[str, Any], payload: bytes) -> None:
        """Take what a host says."""
        del payload
        state = self.hosts[host]
        kind = message.get("t")
        if kind == "pong":
            self._timed.add(host)
            state.take_pong(float(message["sent"]), float(message["now"]), time.time())
            if self._pings[host] < _PINGS:
                self._ping(host)
        elif kind == "ready":
            state.ready = message
        elif kind == "route":
            state.route = message
        self._go_on()

    def gone(self, host: str) -> None:
        """Note that a host's command has ended: nobody waits for it any more."""
        self.hosts[host].command_ended = True
        self._go_on()

    @property
    def port(self) -> int | None:
        """Return the port that the master holds; None while it is not known, or cannot be had."""
        port = (self.master.ready or {}).get("port")
        return port if isinstance(port, int) else None

    @property
    def addresses(self) -> list[str]:
        """Return where other hosts are told to look for the master, likeliest first."""
        own = route.loopback(self._plan, self.port or 0)
        return [own.address] if own is not None else route.candidates(self._plan, self.master)

    def _go_on(self) -> None:
        """Send each host on its way to the master, and let go who has nothing left to do."""
        hopeless = self.port is None and (self.master.command_ended or self.master.ready is not None)
        for name, state in self.hosts.items():
            if state.ready is None:
                continue
            if self.port is not None and name not in self._asked:
                self._asked.add(name)
                probe = {
                    "t": "probe",
                    "addresses": self.addresses,
                    "port": self.port,
                    "timeout": _PROBE_SECONDS,
                }
                self.server.send(name, probe)
            if (hopeless or state.route is not None) and self._may_go(state):
                self._release(name)

    def _may_go(self, state: HostState) -> bool:
        """Tell whether a host is done: its clock is known; the master also waits for all who look for it."""
        if state is self.master and self.port is not None:
            return all(each.route is not None or each.command_ended for each in self.hosts.values())
        return True

    def _release(self, name: str) -> None:
        if name not in self._released:
            self._released.add(name)
            self.server.send(name, {"t": "release"})

    def dismiss(self) -> None:
        """Tell every host to go now."""
        self.dismissed = True
        for name in self.hosts:
            self.server.send(name, {"t": "leave"})
