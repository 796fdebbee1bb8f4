"""Import a training launcher at once, run it when the order comes.

The import takes longest of all that happens before a rank starts (torch: most of a second, many on a slow
shared disk), so it goes on while the other hosts come up. The order is one line of JSON on standard input;
end-of-file without one means that the agent is gone.

torchrun and `accelerate launch` meet at a TCPStore that the first host's opens. One that connects before it
listens is held up by c10d's retries (torch 2.13), for about half a second; so the others try the port first.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
import time
from typing import Any

_PATIENCE = 60.0  # seconds; then the launcher may say in its own words that nobody answers
_POLL = 0.02  # seconds


def main(argv: list[str]) -> int:
    """Run a launcher's `main()` in this process: `late-launch MODULE`.

    The order holds `args` (its command line), `env` (variables to set) and `wait_for` (address and port
    that must answer first, or null).
    """
    launcher = _imported(argv[0])
    line = sys.stdin.readline()
    if not line:
        return 1
    order = json.loads(line)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # ranks inherit it
    os.environ.update(order["env"])
    if order["wait_for"]:
        _wait_for(*order["wait_for"])
    sys.argv = [argv[0], *order["args"]]
    launcher.main()
    return 0


def _imported(module: str) -> Any:
    """Import a launcher without looking for garbage among what it makes, now or when it ends.

    All of that lives to the end. With torch 2.13 it is a quarter of what the process computes.
    """
    gc.disable()
    launcher = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    return launcher


def _wait_for(address: str, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not _answers(address, port):
        time.sleep(_POLL)


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True
