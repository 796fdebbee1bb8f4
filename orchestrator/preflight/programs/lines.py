"""Messages between hosts, and between processes of one host: lines of JSON over a socket."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any, Dict

from orchestrator.agent import network


def send(connection: socket.socket, message: Dict[str, Any]) -> None:
    """Send one message: a line of JSON."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket, seconds: float) -> Dict[str, Any]:
    """Return the next message; what follows it stays unread.

    Raises:
        OSError: none came in time, or the connection is closed.
        ValueError: it is no message.
    """
    connection.settimeout(seconds)
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionResetError("it closed the connection")
        line += byte
    message = json.loads(line.decode())
    if not isinstance(message, dict):
        raise ValueError("no message of ours")  # noqa: TRY004 - as json.loads itself raises
    return message


def listen(address: str, port: int) -> socket.socket:
    """Listen on one address of this host, or on all where it is not known here (NAT).

    Raises:
        OSError: the port is in use.
    """
    try:
        family = socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)[0][0]
        return socket.create_server((address, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"port {port} is in use here") from error
        return network.listen(port)
