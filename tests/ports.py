"""Ports of this machine for what is told its port before it takes it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

_FIRST, _COUNT = 20_000, 10_000  # Linux gives none of them to who asks for any (ip_local_port_range)
_tried = itertools.count(os.getpid() * 97)  # processes that test side by side do not begin at the same


def free_port() -> int:
    """Return a port that nobody has, and that hardly anybody gets before who is told of it takes it."""
    while True:
        port = _FIRST + next(_tried) % _COUNT
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
