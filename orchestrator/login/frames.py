"""What the commands of this machine and the process that holds the connection say to each other.

A message is one byte of kind, four of length, and the bytes. Over one socket runs one command.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

REQUEST = b"r"  # JSON: what is wanted, or what is asked of the user
STARTED = b"s"  # the command has been started on the login host
INPUT = b"i"  # bytes for its input; none is the end of it
OUTPUT = b"o"
ERRORS = b"x"
ENDED = b"c"  # JSON: its exit code
FAILED = b"!"  # JSON: why nothing (more) is known of it

_HEAD = struct.Struct("!cI")
CHUNK = 1 << 16  # bytes in one message at most


def send(sock: socket.socket, kind: bytes, data: bytes = b"") -> None:
    """Send one message."""
    sock.sendall(_HEAD.pack(kind, len(data)) + data)


def send_json(sock: socket.socket, kind: bytes, **values: Any) -> None:
    """Send one message that is a JSON object."""
    send(sock, kind, json.dumps(values).encode())


def receive(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """Return the next message as kind and bytes; None when the other side is gone."""
    head = _exactly(sock, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    data = _exactly(sock, size)
    return None if data is None else (kind, data)


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        try:
            data = sock.recv(min(size, CHUNK))
        except ConnectionError:
            return None
        if not data:
            return None
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
