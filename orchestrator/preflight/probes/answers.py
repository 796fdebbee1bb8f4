"""Answers of this host: one line of JSON each, on standard output, which every launcher carries home."""

from __future__ import annotations

import json
import os
import select
import threading
from typing import Any

PREFIX = "ORCH-CHECK "
_HUNG_UP = select.POLLERR | select.POLLHUP | select.POLLNVAL
_lock = threading.Lock()


def tell(answer: dict[str, Any]) -> None:
    """Print one answer; where nobody listens any more it is lost (see hung_up)."""
    say(PREFIX + json.dumps(answer, separators=(",", ":")))


def say(line: str) -> None:
    """Print a line as a whole, whatever other threads print."""
    data = line.encode("utf-8", "replace") + b"\n"
    with _lock:
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            pass


def hung_up() -> bool:
    """Tell whether nobody reads our standard output any more: the launcher was ended, or the connection."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & _HUNG_UP for _, event in poll.poll(0))
