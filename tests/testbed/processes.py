"""Processes as /proc shows them: found by namespace or by what their environment says, ended by pid."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A living process (zombies do not count: nothing of them runs)."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    netns: int
    """Inode of its network namespace: says which host it runs on, also after a double fork."""


def _stat(pid: int) -> list[str]:
    # The command's name may hold spaces and parentheses, so fields are counted after the last ")".
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot: pid and start time name one process."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def read(pid: int) -> Process | None:
    """Return the process, or None when it has ended or is a zombie."""
    try:
        fields = _stat(pid)
        netns = int((PROC / str(pid) / "ns/net").readlink().name.partition("[")[2].rstrip("]"))
        line = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), tuple(line.removesuffix("\0").split("\0")), netns)


def everything() -> Iterator[Process]:
    """Yield every living process of the machine."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (process := read(int(entry.name))) is not None:
            yield process


def environ(pid: int) -> str:
    """Return the environment a process was started with, entries separated by NUL; empty when it ended."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def mentions(process: Process, marker: str) -> bool:
    """Say whether the marker stands in the process's arguments or in its first environment."""
    return marker in "\0".join(process.argv) or marker in environ(process.pid)


def serves_slurm(process: Process) -> bool:
    """Say whether this is a slurmd (or what Slurm from 23.02 on keeps beside it), and no job's process."""
    words = [word.rpartition("/")[2] for word in process.argv[:2]]
    return words[0] == "slurmd" or words == ["slurmstepd", "infinity"]


def own_line() -> set[int]:
    """Return the pids of this process and of its ancestors: a search must not find the searcher."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            pid = int(_stat(pid)[1])
        except OSError:
            break
    return pids


def find(marker: str) -> list[Process]:
    """Return all processes of the machine that carry the marker, except this one and its ancestors."""
    skip = own_line()
    return [p for p in everything() if p.pid not in skip and mentions(p, marker)]


def in_namespaces(inodes: Iterable[int]) -> list[Process]:
    """Return all processes in these network namespaces."""
    wanted = set(inodes)
    return [p for p in everything() if p.netns in wanted]


def descendants(pid: int) -> list[int]:
    """Return the pids of a process's children, of their children, and so on."""
    children: dict[int, list[int]] = {}
    for process in everything():
        children.setdefault(process.parent, []).append(process.pid)
    found = list(children.get(pid, []))
    for child in found:  # which grows meanwhile
        found += children.get(child, [])
    return found


def end_all(found: Callable[[], Iterable[Process]]) -> None:
    """Kill what a search finds until it finds nothing: a process may start another one while we look."""
    while pids := [process.pid for process in found()]:
        end(pids)


def end(pids: Iterable[int], within: float = 300.0, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill these processes and return when they are gone; raise TimeoutError after `within` seconds."""
    with contextlib.ExitStack() as stack:
        waiting: set[int] = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                signal.pidfd_send_signal(handle, how)
                waiting.add(handle)
        _wait_for(waiting, time.monotonic() + within)


def _wait_for(handles: set[int], deadline: float) -> None:
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    while handles:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{len(handles)} processes of the testbed outlived a signal")
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            handles.discard(handle)
