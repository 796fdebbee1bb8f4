"""Start torchrun or `accelerate launch`; on all hosts but the first, not before the first one answers.

Their processes meet at a TCPStore that the first host's opens. One that connects before it listens is held
up by c10d's retries (torch 2.13): about half a second before any rank of that host starts. So the import,
which takes longest, goes on meanwhile, and the port is tried every few milliseconds.
"""

from __future__ import annotations

import importlib
import socket
import sys
import time

_PATIENCE = 60.0  # seconds; then the launcher may say in its own words that nobody answers
_POLL = 0.02  # seconds


def main(argv: list[str]) -> int:
    """Run a launcher's module in this process: `late-launch MODULE MASTER PORT NODE_RANK ARGS...`."""
    module, master, port, node_rank = argv[:4]
    launcher = importlib.import_module(module)
    if node_rank != "0":
        _wait_for(master, int(port))
    sys.argv = [module, *argv[4:]]
    launcher.main()
    return 0


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
