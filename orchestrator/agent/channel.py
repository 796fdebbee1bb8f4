"""The agent's end of the control channel: connects, proves itself, reconnects, never blocks."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from typing import Any, Iterable

from . import wire

_CONNECT_SECONDS = 3.0
_RETRY_SECONDS = 0.3
_MAX_UNSENT = 1 << 20  # bytes waiting in our buffer before log pieces have to wait


class Channel:
    """A connection to the supervisor that comes back by itself.

    Attributes:
        ready: both sides have proved themselves; messages can be sent.
        contact: time.monotonic() of the last message of the proved supervisor.
        failure: why the last connection did not come about, for the log.
    """

    def __init__(self, selector: selectors.BaseSelector, config: dict[str, Any], host: str) -> None:
        self._selector = selector
        self._token: str = config["token"]
        self._run: str = config["run_id"]
        self._host = host
        self._targets = [(address, int(config["port"])) for address in control_addresses(config)]
        self._silence: float = config["lease"] / 2
        self._attempt = 0
        self._socket: socket.socket | None = None
        self._next_try = 0.0
        self.contact = time.monotonic()
        self.failure = ""
        self.own_address = ""
        self._reset()

    def _reset(self) -> None:
        self.ready = False
        self._connected = False
        self._out = bytearray()
        self._wanted = 0
        self._decoder = wire.Decoder()
        self._nonce = os.urandom(16).hex()

    def tick(self) -> None:
        """Connect if there is no connection, and give up one on which nothing has come for too long."""
        now = time.monotonic()
        if self._socket is None:
            if now >= self._next_try:
                self._connect(now)
        elif now > self._deadline:
            self.close("no answer")

    def _connect(self, now: float) -> None:
        target = self._targets[self._attempt % len(self._targets)]
        self._attempt += 1
        self._next_try = now + _RETRY_SECONDS
        self._deadline = now + min(_CONNECT_SECONDS, self._silence)
        try:
            family, kind, proto, _, address = socket.getaddrinfo(*target, type=socket.SOCK_STREAM)[0]
            self._socket = socket.socket(family, kind, proto)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.connect_ex(address)
        except OSError as error:
            self.close(f"{target[0]}: {error}")
            return
        self._selector.register(self._socket, selectors.EVENT_WRITE, self.on_event)

    def on_event(self, mask: int) -> None:
        """Move bytes; called by the loop when the socket is ready."""
        try:
            if not self._connected:
                self._on_connected()
            if mask & selectors.EVENT_WRITE:
                self._flush()
        except OSError as error:
            self.close(str(error))

    def _on_connected(self) -> None:
        if self._socket is None:
            return
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        self._connected = True
        self.own_address = self._socket.getsockname()[0]
        self._queue({"t": "hello", "run": self._run, "host": self._host, "nonce": self._nonce})

    def _queue(self, message: dict[str, Any], payload: bytes = b"") -> None:
        self._out += wire.encode(message, payload)
        self._flush()

    def _flush(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            while self._out:
                del self._out[: self._socket.send(self._out)]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        if wanted != self._wanted:
            self._wanted = wanted
            self._selector.modify(self._socket, wanted, self.on_event)

    def receive(self) -> list[dict[str, Any]]:
        """Return the messages that have come since the last call; handles the handshake itself."""
        if self._socket is None or not self._connected:
            return []
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return []
        except OSError as error:
            self.close(str(error))
            return []
        if not data:
            self.close("the supervisor closed the connection")
            return []
        return self._decode(data)

    def _decode(self, data: bytes) -> list[dict[str, Any]]:
        try:
            messages = [
                {**message, "payload": payload} if payload else message
                for message, payload in self._decoder.feed(data)
            ]
            return [m for m in messages if not self._is_handshake(m)]
        except (wire.WireError, OSError) as error:
            self.close(str(error))
            return []

    def _is_handshake(self, message: dict[str, Any]) -> bool:
        if self.ready:
            self.contact = time.monotonic()
            self._deadline = self.contact + self._silence
            return False
        if message.get("t") == "challenge":
            if not wire.is_proof(message.get("proof"), self._token, "supervisor", self._nonce, self._host):
                raise wire.WireError("the peer is not this run's supervisor")
            answer = wire.proof(self._token, "agent", str(message.get("nonce")), self._host)
            self._queue({"t": "proof", "proof": answer})
            self.ready = True
        return True

    def send(self, message: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message if the channel is ready; what matters is said again after a reconnection."""
        if not self.ready:
            return
        try:
            self._queue(message, payload)
        except OSError as error:
            self.close(str(error))

    def send_all(self, messages: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        """Send messages as they come, in as few packets as they fit in, until there is no room for more."""
        for message, payload in messages:
            self._out += wire.encode(message, payload)
            if not self.has_room:
                break
        try:
            self._flush()
        except OSError as error:
            self.close(str(error))

    @property
    def has_room(self) -> bool:
        """Tell whether a piece of a log may be queued now."""
        return self.ready and len(self._out) < _MAX_UNSENT

    def close(self, why: str = "") -> None:
        """Drop the connection; tick() makes a new one."""
        if self._socket is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._socket)
            self._socket.close()
        self._socket = None
        self.failure = why
        self._next_try = time.monotonic() + _RETRY_SECONDS
        self._reset()


def control_addresses(config: dict[str, Any]) -> list[str]:
    """Return where the supervisor may be reached, best first.

    That is what the job file says; else the address from which sshd saw the submit host come
    (SSH_CONNECTION, sshd(8)), which holds behind NAT and on hosts with many interfaces; else this
    host's own end of that connection, which forwards the port back, where the submit host cannot be
    reached directly (behind a jump host, a firewall); else the submit host's addresses.
    """
    if config.get("control_address"):
        return [config["control_address"]]
    seen = os.environ.get("SSH_CONNECTION", "").split()[:1]
    forwarded = ["127.0.0.1"] if seen else []
    return list(dict.fromkeys([*seen, *forwarded, *config["addresses"]]))
