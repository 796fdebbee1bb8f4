"""The machine itself: memory, limits, interfaces, and what earlier runs left on it."""

from __future__ import annotations

import os
import resource
import socket
from typing import Any

from orchestrator.agent import network
from orchestrator.agent.processes import MARK, read_process

_MOST_LEFT = 20  # processes that are told of


def machine(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return name, CPUs, memory (bytes) and limits of this process (-1: none)."""
    del config, host
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    memory = _memory()
    return {
        "hostname": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory.get("MemTotal", 0),
        "available": memory.get("MemAvailable", 0),
        "memory_limit": _cgroup_limit(),
        "files": files,
        "locked": locked,
        "infiniband": os.path.isdir("/sys/class/infiniband") and len(os.listdir("/sys/class/infiniband")) > 0,
    }


def _memory() -> dict[str, int]:
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = [line.split() for line in file]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}


def _cgroup_limit() -> int | None:
    """Return the memory limit (bytes) of our cgroup or of one above it (cgroup v2); None for none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            path = next(line.strip()[3:] for line in file if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    limits = []
    while True:
        try:
            with open(f"/sys/fs/cgroup{path}/memory.max", encoding="ascii") as file:
                text = file.read().strip()
            limits += [int(text)] if text.isdigit() else []
        except OSError:
            pass  # the root has none
        if path in ("/", ""):
            return min(limits) if limits else None
        path = os.path.dirname(path)


def interfaces(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return the names of all interfaces, the addresses with theirs, and what our own name resolves to."""
    del config, host
    name = socket.gethostname()
    try:
        resolved = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError:
        resolved = []
    return {
        "interfaces": [each for _, each in socket.if_nameindex()],
        "addresses": network.addresses(),
        "own_name": {"name": name, "resolves_to": resolved},
    }


def leftovers(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return the processes of our runs that are on this host; a check's own do not count."""
    del host
    here = os.stat("/proc/self/ns/net").st_ino
    runs = {int(name): _run_of(name) for name in os.listdir("/proc") if name.isdigit()}
    others = [pid for pid, run in runs.items() if run and not run.startswith((".check-", config["run_id"]))]
    there = sorted(pid for pid in others if same_network(pid, here) and read_process(pid))
    told = [{"pid": pid, "run": runs[pid], "command": _command(pid)} for pid in there[:_MOST_LEFT]]
    return {"processes": told, "count": len(there)}


def same_network(pid: int, here: int) -> bool:
    """Tell whether a process is on this host, and not on another that shares its processes (a simulation)."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino == here
    except OSError:
        return False


def _run_of(pid: str) -> str:
    """Return the id of the run that a process belongs to, "" for none or one that we may not look at."""
    entry = MARK.encode() + b"="
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # only our own user's are readable
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    marks = [each[len(entry) :] for each in variables if each.startswith(entry)]
    return marks[0].decode("utf-8", "replace").split("/")[0] if marks else ""


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()[:100]
    except OSError:
        return ""
