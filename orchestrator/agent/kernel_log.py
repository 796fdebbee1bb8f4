"""What the kernel says of this host: processes that its OOM killer ended, GPUs' Xids.

/dev/kmsg is readable where `kernel.dmesg_restrict` is 0, or for root. How many processes the OOM killer has
ended is told to everybody (Linux 4.13), of our own cgroup or at least of the host, so that it is known in any
case that there was one.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

from .cgroup import own
from .host_facts import read_text

# Written by mm/oom_kill.c; the second form is a memory cgroup's, the limit of a Slurm job or a container.
_OOM = re.compile(r"(?:Out of memory|Memory cgroup out of memory)[^:]*: Killed process (\d+) \(([^)]*)\)")
_WHOSE = re.compile(
    r"^oom-kill:.*\btask_memcg=([^,]*),.*\bpid=(\d+)"
)  # the message before it, since Linux 5.0
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:]+)(?:\.\d)?\): (\d+)")
_MOST = 100  # records read at a time: a kernel in trouble says the same thing thousands of times


class KernelLog:
    """Reads what comes after now."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._own = own()
        self._of_cgroup = self._own.kills() is not None
        self._kills = self._count()
        self._unnamed = 0
        self._cgroups: dict[str, str] = {}  # of processes that are being ended, by pid
        try:
            self._handle: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # a pipe, in a test
                os.lseek(self._handle, 0, os.SEEK_END)
        except OSError:
            self._handle = None

    def new(self, *, last: bool = False) -> list[dict[str, Any]]:
        """Return the faults that the kernel has told of since the last call; an Xid with `bus`, not `gpu`.

        Args:
            last: there is no next call, in which the name of a process that was ended may come.
        """
        found = [fault for fault in map(self._fault, self._messages()) if fault is not None]
        kills = [fault for fault in found if fault["what"] == "oom_kill"]
        named = sum(not (self._of_cgroup and fault.get("other")) for fault in kills)
        return found + self._counted(named, last=last)

    def _fault(self, message: str) -> dict[str, Any] | None:
        """Return a message's fault; `other` is true for a process that is surely not of this run."""
        told, fault = _WHOSE.search(message), fault_of(message)
        if told is not None:
            self._cgroups = {told[2]: told[1]}
        if fault is None or fault["what"] != "oom_kill":
            return fault
        other = self._own.is_other(message, self._cgroups.pop(str(fault["pid"]), ""))
        return {**fault, "other": True} if other else fault

    def _count(self) -> int:
        mine = self._own.kills() if self._of_cgroup else None
        return kills(read_text("/proc/vmstat")) if mine is None else mine

    def _counted(self, named: int, *, last: bool) -> list[dict[str, Any]]:
        """Return that the OOM killer ended processes, when no message has named them by the next call."""
        before, self._kills = self._kills, self._count()
        late, self._unnamed = self._unnamed, max(0, self._unnamed + self._kills - before - named)
        sure = self._unnamed if last or self._handle is None else min(late, self._unnamed)
        if not sure:
            return []
        self._unnamed -= sure
        whose = "of this run's cgroup" if self._of_cgroup else "on this host, of this run or of others"
        text = f"the kernel's OOM killer ended {sure} process{'es' * (sure > 1)} {whose}"
        return [{"what": "oom_kill", "text": text}]

    def _messages(self) -> list[str]:
        found: list[str] = []
        while self._handle is not None and len(found) < _MOST:
            try:
                record = os.read(self._handle, 8192)
            except BrokenPipeError:
                continue  # records were overwritten before we came: go on with the oldest that is left
            except OSError:
                break
            if not record:
                break
            found.append(message_of(record))
        return found


def message_of(record: bytes) -> str:
    """Return the text of one record of /dev/kmsg: `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT` (dev-kmsg)."""
    return record.decode("utf-8", "replace").partition(";")[2].split("\n", 1)[0]


def fault_of(message: str) -> dict[str, Any] | None:
    """Return the fault that a kernel message tells of; None for any other message."""
    oom, xid = _OOM.search(message), _XID.search(message)
    if oom is not None:
        return {"what": "oom_kill", "pid": int(oom[1]), "process": oom[2], "text": message}
    if xid is not None:
        return {"what": "xid", "bus": xid[1].lower(), "code": int(xid[2]), "text": message}
    return None


def kills(vmstat: str) -> int:
    """Return how many processes the OOM killer has ended since boot, from /proc/vmstat; 0 where unknown."""
    words = vmstat.partition("\noom_kill ")[2].split("\n", 1)[0]
    return int(words) if words.isdigit() else 0
