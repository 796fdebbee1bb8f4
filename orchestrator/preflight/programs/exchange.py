"""How much to send in the time there is, and the measurement that needs no torch."""

from __future__ import annotations

import statistics
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Tuple

from .lines import receive, send

if TYPE_CHECKING:
    import socket

WARM = 1 << 20
"""Bytes of the first, short measurement, which says how much there is time for."""
_LEAST_REPEATS = 3


def fit(order: Dict[str, Any], seconds: float) -> Tuple[int, int]:
    """Return (bytes, repeats) that fit into the time of a measurement, from what `WARM` bytes took."""
    size = order["bytes"]
    expected = seconds * size / WARM
    share = order["seconds"] / _LEAST_REPEATS
    if expected > share:
        size = max(WARM, int(size * share / expected))
    repeats = int(order["seconds"] / max(seconds * size / WARM, 1e-9))
    return size // 4 * 4, max(_LEAST_REPEATS, min(order["repeats"], repeats))


def exchange(connection: socket.socket, order: Dict[str, Any], *, leads: bool) -> Dict[str, Any]:
    """Measure how long both hosts take to send each other bytes at the same time: no torch needed."""
    connection.settimeout(order["limit"])
    swap(connection, 4096)
    warm = swap(connection, WARM)
    if leads:
        size, repeats = fit(order, warm)
        send(connection, {"bytes": size, "repeats": repeats})
    else:
        chosen = receive(connection, order["limit"])
        size, repeats = int(chosen["bytes"]), int(chosen["repeats"])
    times = [swap(connection, size) for _ in range(repeats)]
    return {"bytes": size, "time": statistics.median(times), "times": times}


def swap(connection: socket.socket, size: int) -> float:
    """Send and receive `size` bytes at the same time; return the seconds it took."""
    began = time.perf_counter()
    sender = threading.Thread(target=connection.sendall, args=(bytes(size),), daemon=True)
    sender.start()
    left, buffer = size, bytearray(1 << 18)
    while left:
        got = connection.recv_into(buffer, min(left, len(buffer)))
        if not got:
            raise ConnectionResetError("it closed the connection")
        left -= got
    sender.join()
    return time.perf_counter() - began
