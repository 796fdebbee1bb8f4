"""Ends what still runs of an earlier visit on this host: a start script that hangs before its probes."""

from __future__ import annotations

import os
import shutil
import signal
from typing import Any

from orchestrator.agent import processes

from .machine import same_network


def sweep(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Take back what was sent to this host for that visit, and kill its start script with all below it.

    The name of its run directory is random, so a shell or Python that was given a path in it is that visit's.
    """
    del host
    run_dir: str = config["check"]["sweep"]
    _take_back(run_dir)
    table = processes.all_processes()
    here = os.stat("/proc/self/ns/net").st_ino
    ours = _ancestors()
    roots = [pid for pid in table if _runs(pid, run_dir) and pid not in ours and same_network(pid, here)]
    for root in roots:
        below = processes.find(run_dir, [root], [])  # as a mark it is nobody's: descent alone counts
        for process in [table[root], *below]:
            processes.send(process, signal.SIGKILL)
    _take_back(run_dir)  # what it wrote meanwhile
    return {"ended": len(roots)}


def _take_back(run_dir: str) -> None:
    if os.path.exists(os.path.join(run_dir, "pushed")):
        shutil.rmtree(run_dir, ignore_errors=True)


def _ancestors() -> set[int]:
    """Return this process and those that it descends from."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError):
            break
    return found


def _runs(pid: int, run_dir: str) -> bool:
    """Return whether a process is a shell or a Python with a word that is a path in the run directory."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            program, *words = file.read().decode("utf-8", "surrogateescape").split("\0")
    except (OSError, ValueError):
        return False
    name = os.path.basename(program).lstrip("-")
    told = any(word == run_dir or word.startswith(run_dir + "/") for word in words)
    return told and (name in ("bash", "sh", "env") or name.startswith("python"))
