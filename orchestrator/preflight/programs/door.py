"""How hosts find each other in time: a door that always answers, and patience with hosts that are late."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any, Dict, List, Set, Tuple

from .lines import listen, receive, send

Guest = Tuple[socket.socket, Dict[str, Any]]
"""The connection of a host that has come, and what it said."""


class AbsentError(Exception):
    """The other host did not come; the text says what was seen instead."""


class Door:
    """Where other hosts come; it answers at all times, whatever this host is busy with."""

    def __init__(self, address: str, port: int, token: str) -> None:
        self._token = token
        self._guests: Dict[Tuple[str, str], Guest] = {}
        self._closed: Set[str] = set()
        self._changed = threading.Condition()
        self._server = listen(address, port)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            hello = receive(connection, 5)
            if hello.get("token") != self._token:
                connection.close()
            elif not self._let_in(connection, hello):
                send(connection, {"here": True})
                connection.close()

    def _let_in(self, connection: socket.socket, hello: Dict[str, Any]) -> bool:
        """Keep a guest for its meeting; False for one who only looks, or comes too late."""
        with self._changed:
            if hello.get("meeting") is None or hello["meeting"] in self._closed:
                return False
            self._guests[hello["meeting"], hello["name"]] = (connection, hello)
            self._changed.notify_all()
            return True

    def wait(self, meeting: str, names: List[str], seconds: float) -> Guest | None:
        """Return the next of these guests, or None when none of them comes in time."""
        with self._changed:
            keys = [(meeting, name) for name in names]
            self._changed.wait_for(lambda: any(key in self._guests for key in keys), seconds)
            return next((self._guests.pop(key) for key in keys if key in self._guests), None)

    def close(self, meeting: str) -> None:
        """Turn away who comes to this meeting from now on."""
        with self._changed:
            self._closed.add(meeting)


class Patience:
    """How long to wait for a host: some seconds since it last gave a sign of life.

    Args:
        peer: its `address` and `port`.
        token: the secret of this check.
        seconds: how long without a sign.
        until: time.monotonic() until which hosts may still be starting.
    """

    def __init__(self, peer: Dict[str, Any], token: str, seconds: float, until: float) -> None:
        self._where = (peer["address"], peer["port"])
        self._token = token
        self._seconds = seconds
        self._end = max(until, time.monotonic() + seconds)
        self.why = "no answer"

    @property
    def over(self) -> bool:
        """Tell whether it is at an end."""
        return time.monotonic() > self._end

    def call(self, hello: Dict[str, Any]) -> socket.socket | None:
        """Connect to the host's door and say hello; None if it does not open."""
        try:
            connection = socket.create_connection(self._where, timeout=3)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            send(connection, dict(hello, token=self._token))
        except OSError as error:
            self.why = str(error.strerror or error)
            return None
        return connection

    def look(self) -> None:
        """See whether the host lives; if so, patience begins anew."""
        connection = self.call({})
        if connection is None:
            return
        with connection, contextlib.suppress(OSError, ValueError):
            receive(connection, 3)
            self._end = max(self._end, time.monotonic() + self._seconds)
            self.why = "it listens but did not come to this measurement"
