"""This host's part in finding out whether hosts reach one another: the run's own control channel carries it.

The host connects back to the submit side as an agent would, answers pings (clock), holds the master's port
if it is the master, and tries the master's addresses when it is told them.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from orchestrator.agent import network
from orchestrator.agent.channel import Channel, control_addresses

from . import answers

if TYPE_CHECKING:
    import selectors
    import socket

_PATIENCE = 12.0  # seconds to connect back: each of our addresses gets three at least once


class Meeting:
    """A connection to the submit side, and what is asked through it.

    Attributes:
        over: nothing more is to be heard: let go, or no way to the submit side.
        told_to_leave: the visit is to end at once, whatever is still being done.
    """

    def __init__(
        self, selector: selectors.BaseSelector, config: dict[str, Any], host: dict[str, Any]
    ) -> None:
        self._selector = selector
        self._config = config
        self._host = host
        self._channel = Channel(selector, config, host["name"])
        self._patience = max(_PATIENCE, 3.5 * len(control_addresses(config)))
        self._began = time.monotonic()
        self._met = False
        self._outbox: list[dict[str, Any]] = []
        self._holding: socket.socket | None = None
        self.over = False
        self.told_to_leave = False

    def turn(self, seconds: float) -> None:
        """Wait up to `seconds` for something to happen, and deal with it."""
        for key, mask in self._selector.select(seconds):
            key.data(mask)
        for message in self._channel.receive():
            self._obey(message)
        while self._outbox and self._channel.ready:
            self._channel.send(self._outbox.pop(0))
        if self._met and not self._channel.ready:
            self.over = True  # the submit side is gone, or wants no more
        elif not self._met and time.monotonic() - self._began > self._patience:
            self._give_up()
        if not self.over:
            self._channel.tick()

    def _give_up(self) -> None:
        tried = ", ".join(control_addresses(self._config))
        port = self._config["port"]
        why = f"no way back to the submit host: tried {tried} on port {port} ({self._channel.failure})"
        answers.tell({"probe": "control", "error": why})
        self.over = True

    def _obey(self, message: dict[str, Any]) -> None:
        order = message["t"]
        if order == "welcome":
            self._met = True
            self._introduce()
        elif order == "ping":
            self._channel.send({"t": "pong", "sent": message["sent"], "now": time.time()})
        elif order == "probe":
            threading.Thread(target=self._probe, args=(message,), daemon=True).start()
        elif order == "release":
            self.over = True
        elif order == "leave":
            self.over = self.told_to_leave = True

    def _introduce(self) -> None:
        """Say where this host is; the master says which port it holds, or why it cannot."""
        ready: dict[str, Any] = {"t": "ready", "addresses": self._addresses(), "port": None}
        if self._host["index"] == 0:
            ready["port"] = self._hold_port()
        answers.tell({"probe": "control", "data": {"own_address": self._channel.own_address}})
        self._channel.send(ready)

    def _addresses(self) -> list[tuple[str, str]]:
        """Return this host's addresses and interfaces in the order in which a run tries them."""
        reached = os.environ.get("SSH_CONNECTION", "").split()[2:3] or [self._channel.own_address]
        return sorted(network.addresses().items(), key=lambda pair: pair[0] not in reached)

    def _hold_port(self) -> int | str:
        port = self._config["master_port"] or 0
        try:
            self._holding = network.listen(port)
        except OSError as error:
            return f"train.master_port {port} is not free here: {error.strerror}"
        return int(self._holding.getsockname()[1])

    def _probe(self, message: dict[str, Any]) -> None:
        """Try all addresses of the master at once; tell how each went."""
        found: dict[str, dict[str, str]] = {}

        def attempt(address: str) -> None:
            try:
                own, interface = network.interface_towards(address, message["port"], message["timeout"])
                found[address] = {"interface": interface, "own": own}
            except OSError as error:
                found[address] = {"failure": str(error.strerror or error)}

        where = message["addresses"]
        threads = [threading.Thread(target=attempt, args=(each,), daemon=True) for each in where]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._outbox.append({"t": "route", "tried": {address: found[address] for address in where}})
