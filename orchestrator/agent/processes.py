"""Find, signal and reap the processes of a run on this host: by descent and by a mark, never by name.

The mark is one variable in the environment of everything the training launcher starts. Descent covers
a process that overwrote its environment (setproctitle does); the mark covers one that left the tree.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from typing import Callable, Iterable, NamedTuple

MARK = "ORCHESTRATE_RUN_HOST"

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PTRACER = 0x59616D61


class Process(NamedTuple):
    """One process, told from a later one with the same pid by its start time (clock ticks since boot)."""

    pid: int
    parent: int
    started: int


def become_subreaper() -> None:
    """Make orphans among our descendants our children (prctl(2)), so that none escapes."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel SIGKILL this process when its parent ends (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def let_trace(tracer: int) -> None:
    """Let a process and what it starts read this one's stacks, where Yama leaves that to parents (prctl(2)).

    It holds over exec: Yama keeps it with the task (security/yama/yama_lsm.c). Elsewhere it does nothing.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PTRACER, tracer, 0, 0, 0)


def abort_mark(socket_path: str, rank: int) -> str:
    """Return the file that tells a rank's shim to end it by SIGABRT; it lies beside the shims' socket."""
    return os.path.join(os.path.dirname(socket_path), f"abort.{rank}")


def stat_fields(pid: int) -> list[bytes] | None:
    """Return what proc(5) says in `stat` of a process from its 3rd field on; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return None
    # The command name may hold spaces and parentheses: the fields start after the last ")".
    return stat[stat.rindex(b")") + 2 :].split()


def read_process(pid: int) -> Process | None:
    """Return the process with that pid; None when there is none or it is a zombie."""
    fields = stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[19]))


def all_processes() -> dict[int, Process]:
    """Return every live process of this host by pid."""
    found = (read_process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def find(mark: str, roots: Iterable[int], spare: Iterable[int]) -> list[Process]:
    """Return the live processes of a run: descendants of `roots`, and all that carry `mark`.

    Args:
        mark: value of the MARK variable.
        roots: pids whose descendants count (they themselves do not).
        spare: pids never returned.
    """
    table = all_processes()
    family = _descendants(table, set(roots))
    entry = f"{MARK}={mark}".encode()
    spared = set(spare) | {os.getpid()}
    return [p for pid, p in table.items() if pid not in spared and (pid in family or _carries(pid, entry))]


def _descendants(table: dict[int, Process], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    family: set[int] = set()
    waiting = list(roots)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in family:
                family.add(child)
                waiting.append(child)
    return family


def _carries(pid: int, entry: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # only our own user's are readable
            return entry in file.read().split(b"\0")
    except OSError:
        return False


def send(process: Process, number: int) -> None:
    """Signal a process unless it has ended, even if its pid has been given to another since."""
    if hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal"):
        _send_by_handle(process, number)
    elif _is_same(process):
        _ignoring_gone(os.kill, process.pid, number)


def _send_by_handle(process: Process, number: int) -> None:
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if _is_same(process):
            _ignoring_gone(signal.pidfd_send_signal, handle, number)
    finally:
        os.close(handle)


def _is_same(process: Process) -> bool:
    now = read_process(process.pid)
    return now is not None and now.started == process.started


def _ignoring_gone(function: Callable[[int, int], None], target: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        function(target, number)


def send_to(pid: int, number: int) -> None:
    """Signal a child that has not been reaped yet, so that its pid is still its own."""
    _ignoring_gone(os.kill, pid, number)


def reap() -> dict[int, int]:
    """Collect every child that has ended: pid -> wait status."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def exit_code_of(status: int) -> int:
    """Return a wait status as an exit code; minus the signal number after a death by signal."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_all(mark: str, roots: Iterable[int], spare: Iterable[int], seconds: float) -> list[Process]:
    """SIGKILL every process of a run until none is found; return what outlived `seconds`.

    Children are left for the caller to reap: how the training launcher ended is worth knowing.
    """
    roots, spare = tuple(roots), tuple(spare)
    deadline = time.monotonic() + seconds
    while True:
        left = find(mark, roots, spare)
        for process in left:
            send(process, signal.SIGKILL)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
