"""Ends what still runs of an earlier visit on this host: a start script that hangs before its probes."""

from __future__ import annotations

import os
import shutil
import signal
from typing import Any

from orchestrator.agent import processes

from .machine import same_network


def sweep(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Kill the start script of that visit, with all below it; take back what was sent to this host for it.

    The name of its run directory is random, so a command line that holds it is that visit's.
    """
    del host
    run_dir: str = config["check"]["sweep"]
    table = processes.all_processes()
    here = os.stat("/proc/self/ns/net").st_ino
    roots = [pid for pid in table if run_dir.encode() in _command(pid) and same_network(pid, here)]
    for root in roots:
        below = processes.find("", [root], [])
        for process in [table[root], *below]:
            processes.send(process, signal.SIGKILL)
    if os.path.exists(os.path.join(run_dir, "pushed")):
        shutil.rmtree(run_dir, ignore_errors=True)
    return {"ended": len(roots)}


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
