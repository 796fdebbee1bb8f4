"""What each rank's whole tree of processes uses: data loaders and compilers are the rank's too."""

from __future__ import annotations

import os
from typing import Iterable, NamedTuple

from .processes import stat_fields

_FORGET = 30  # readings after which every process is looked at again: a pid may be a new process by then


class Use(NamedTuple):
    """What a process has used: `ticks`, with the children it has waited for, and resident `pages`."""

    pid: int
    parent: int
    ticks: int
    pages: int


class Trees:
    """Reads the processes below some roots, and nothing of the thousands of others a host may have.

    A process that once was found to be no descendant of this agent is not read again for a while.
    """

    def __init__(self, agent: int) -> None:
        self._agent = agent
        self._strangers: set[int] = set()
        self._readings = 0

    def read(self, roots: Iterable[int]) -> dict[int, list[Use]]:
        """Return what the live processes of each root's tree have used, the root first."""
        self._readings += 1
        if self._readings % _FORGET == 0:
            self._strangers.clear()
        listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        uses = {pid: use for pid in listed - self._strangers if (use := read_use(pid)) is not None}
        children: dict[int, list[int]] = {}
        for pid, use in uses.items():
            children.setdefault(use.parent, []).append(pid)
        ours = _below(children, self._agent)
        self._strangers = (listed - set(ours)) | {self._agent}
        return {root: [uses[pid] for pid in _below(children, root)] for root in roots if root in uses}


def _below(children: dict[int, list[int]], root: int) -> list[int]:
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def read_use(pid: int) -> Use | None:
    """Return what a process has used; None when there is none of that pid."""
    fields = stat_fields(pid)
    if fields is None:
        return None
    # proc(5) numbers from 1, and these begin with its 3rd: 4 ppid, 14 to 17 times, 24 rss.
    return Use(pid, int(fields[1]), sum(map(int, fields[11:15])), int(fields[21]))


class Rates:
    """Turns counters into what was used a second since they were last told."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}

    def rate(self, name: str, value: float, now: float) -> float | None:
        """Return the mean rate since the last call; None for the first, and where a counter began anew.

        Args:
            name: of the counter.
            value: of it.
            now: time.monotonic() of the reading.
        """
        before, since = self._before.get(name, (value, now))
        self._before[name] = (value, now)
        return (value - before) / (now - since) if now > since and value >= before else None
