"""Whose processes the kernel's OOM killer ended: those of our memory cgroup, or somebody else's.

A cgroup counts kills of its own processes "by any kind of OOM killer" (admin-guide/cgroup-v2.rst of Linux; in
version 1 since 4.13), while /proc/vmstat counts those of the whole host.
"""

from __future__ import annotations

import os
import re

from .host_facts import read_text

_ROOT = "/sys/fs/cgroup"
_ALL_IDS = ["0", "0", "4294967295"]  # of /proc/self/uid_map outside of any user namespace
_UID = re.compile(r"\bUID:(\d+)")  # in the message of a kill since Linux 5.4


class Own:
    """What is ours.

    Args:
        cgroup: text of /proc/self/cgroup.
        uid: our user as the kernel's log calls it; None where that is not known.
        root: where cgroups are mounted.
    """

    def __init__(self, cgroup: str, uid: int | None, root: str = _ROOT) -> None:
        rows = [line.split(":", 2) for line in cgroup.splitlines() if line.count(":") > 1]
        first = next((path for _, names, path in rows if "memory" in names.split(",")), None)
        second = next((path for number, names, path in rows if number == "0" and not names), None)
        self._uid = uid
        self._path = first if first is not None else second
        place, name = ("memory", "memory.oom_control") if first is not None else ("", "memory.events")
        self._counter = os.path.join(root, place, (self._path or "").lstrip("/"), name)

    def kills(self) -> int | None:
        """Return how many processes of our cgroup were ended; None where nobody counts them."""
        rows = [line.split() for line in read_text(self._counter).splitlines()]
        return next((int(row[1]) for row in rows if row[0] == "oom_kill"), None)

    def is_other(self, message: str, cgroup: str) -> bool:
        """Tell whether a process that was ended was surely somebody else's.

        Args:
            message: the kernel's on the kill.
            cgroup: of the process; "" where the kernel does not say.
        """
        told = _UID.search(message)
        if told is not None and self._uid is not None and int(told[1]) != self._uid:
            return True
        path = (self._path or "/").rstrip("/")
        known = bool(path) and "/.." not in path  # else we are in a namespace, and paths mean something else
        return known and bool(cgroup) and not f"{cgroup}/".startswith(f"{path}/")


def own() -> Own:
    """Return what is ours as this process stands."""
    plain = read_text("/proc/self/uid_map").split() == _ALL_IDS
    return Own(read_text("/proc/self/cgroup"), os.getuid() if plain else None)
