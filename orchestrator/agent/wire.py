"""The control channel's wire format and handshake, shared by agent and supervisor.

A message is one JSON object on a line. A message with `"size": n` is followed by n raw bytes (a piece of
a log file). Both sides prove that they hold the run's token without sending it: each answers the other's
nonce with an HMAC, so a stranger on the network can neither stop a run nor pose as its supervisor.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

MAX_LINE = 1 << 24  # bytes; a hello of a host with many ranks is far below this


class WireError(Exception):
    """The peer sent something that is not a message."""


def encode(message: dict[str, Any], payload: bytes = b"") -> bytes:
    """Return a message, with its raw bytes if any, as it goes over the wire."""
    if payload:
        message = dict(message, size=len(payload))
    return json.dumps(message, separators=(",", ":")).encode() + b"\n" + payload


def proof(token: str, side: str, nonce: str, host: str) -> str:
    """Return the answer of `side` ("agent" or "supervisor") to the other side's nonce."""
    said = f"{side}\0{nonce}\0{host}"
    return hmac.new(token.encode(), said.encode(), hashlib.sha256).hexdigest()


def is_proof(given: Any, token: str, side: str, nonce: str, host: str) -> bool:
    """Tell whether `given` is that answer, in constant time."""
    return isinstance(given, str) and hmac.compare_digest(given, proof(token, side, nonce, host))


class Decoder:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """Take received bytes; return the messages now complete, each with its payload.

        Raises:
            WireError: the bytes are not messages.
        """
        self._buffer += data
        messages: list[tuple[dict[str, Any], bytes]] = []
        while True:
            message = self._next()
            if message is None:
                return messages
            messages.append(message)

    def _next(self) -> tuple[dict[str, Any], bytes] | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > MAX_LINE:
                raise WireError("a line without end")
            return None
        try:
            message = json.loads(self._buffer[:end])
            size = int(message.get("size", 0))
        except (ValueError, AttributeError, TypeError) as error:
            raise WireError(str(error)) from error
        if size < 0 or size > MAX_LINE:
            raise WireError(f"a payload of {size} bytes")
        if len(self._buffer) < end + 1 + size:
            return None
        payload = bytes(self._buffer[end + 1 : end + 1 + size])
        del self._buffer[: end + 1 + size]
        return message, payload
