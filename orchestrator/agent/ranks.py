"""What this host's ranks do: heard from their shims as it happens, checked against the process table."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import time
from typing import Any, Dict, Iterable

from . import processes

Record = Dict[str, Any]

_SETTLE_SECONDS = 0.3  # a shim that ended has written its record; this long for the record to be heard


class Ranks:
    """The records of this host's ranks, by rank.

    A record holds rank, local_rank, pid, shim and, once ended, exit_code or signal, time (epoch
    seconds of this host), term_time (when it got SIGTERM, or None) and message.

    Args:
        errors: where shims write how their rank ended.
        folder: for the socket on which they tell it.
        selector: of the loop, which it wakes when a shim ends (pidfds: Linux 5.3 and Python 3.9).
    """

    def __init__(self, errors: str, folder: str, selector: selectors.BaseSelector | None = None) -> None:
        self._errors = errors
        self._selector = selector
        self._handles: dict[int, int] = {}
        self.records: dict[int, Record] = {}
        self._shims: dict[int, processes.Process] = {}
        self._missing: dict[int, float] = {}
        self._told: dict[int, float] = {}
        self.socket_path = os.path.join(folder, "ranks")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(self.socket_path)

    def close(self) -> None:
        """Hear no more, and leave no folder behind: the keeper may have been killed."""
        self.socket.close()
        shutil.rmtree(os.path.dirname(self.socket_path), ignore_errors=True)

    def hear(self) -> list[Record]:
        """Take in what shims have said; return the changed records."""
        changed = []
        with contextlib.suppress(BlockingIOError):
            while True:
                changed.append(self._take(json.loads(self.socket.recv(1 << 16))))
        return changed

    def _take(self, record: Record) -> Record:
        rank = record["rank"]
        known = self.records.setdefault(rank, record)
        if known.get("event") != "exit":  # never let a late start hide an end
            self.records[rank] = record
        shim = processes.read_process(record["shim"])
        if record["event"] == "start" and shim is not None:
            self._shims[rank] = shim
            self._watch(rank, shim)
        return self.records[rank]

    def _watch(self, rank: int, shim: processes.Process) -> None:
        """Have the loop woken when the shim ends, so that nobody need ask for it over and over."""
        if self._selector is None or rank in self._handles or not hasattr(os, "pidfd_open"):
            return
        with contextlib.suppress(OSError):
            handle = self._handles[rank] = os.pidfd_open(shim.pid)
            self._selector.register(handle, selectors.EVENT_READ, lambda _: self._unwatch(rank))

    def _unwatch(self, rank: int) -> None:
        handle = self._handles.pop(rank)
        if self._selector is not None:
            self._selector.unregister(handle)
        os.close(handle)

    @property
    def unsettled(self) -> bool:
        """Tell whether a rank's shim has ended, or cannot be watched, and its word has not come yet."""
        return any(rank not in self._handles for rank in self.live())

    def listed(self) -> list[tuple[int, Record]]:
        """Return every rank and its record; other threads may ask."""
        return list(self.records.items())

    def check(self) -> list[Record]:
        """Return the ends that no shim could tell: its process has gone (SIGKILL) without a word."""
        now = time.monotonic()
        lost = []
        for rank, record in self.records.items():
            if record["event"] == "exit" or rank in self._handles or self._is_running(rank):
                continue
            if now - self._missing.setdefault(rank, now) < _SETTLE_SECONDS:
                continue
            lost.append(self._take(self._from_disk(rank) or self._vanished(record)))
        return lost

    def killed(self) -> list[Record]:
        """Return the ends of ranks that were live when everything was SIGKILLed, their shims included."""
        return [
            self._take(self._from_disk(rank) or self._vanished(self.records[rank])) for rank in self.live()
        ]

    def _vanished(self, record: Record) -> Record:
        told = self._told.get(record["rank"])
        return dict(
            record,
            event="exit",
            exit_code=None,
            signal=int(signal.SIGKILL),
            time=time.time(),
            term_time=told,
            message="" if told else "its process disappeared, as after SIGKILL",
            raised_time=None,
        )

    def _from_disk(self, rank: int) -> Record | None:
        """Read the record the shim wrote, in case its datagram was lost."""
        for name in os.listdir(self._errors):
            if name.endswith(f".rank{rank}.json"):
                path = os.path.join(self._errors, name)
                with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
                    return dict(json.load(file), event="exit")
        return None

    def _is_running(self, rank: int) -> bool:
        shim = self._shims.get(rank)
        return shim is not None and processes.read_process(shim.pid) == shim

    def pids(self) -> dict[int, int]:
        """Return the pids of the ranks that run."""
        return {rank: self.records[rank]["pid"] for rank in self.live()}

    def abort_at_end(self, ranks: Iterable[int]) -> None:
        """Have ranks end by SIGABRT when they are told to end, which leaves their stacks (see rank.py)."""
        for rank in ranks:
            if rank in self.records:
                with contextlib.suppress(OSError):  # a full /tmp: it gets SIGTERM as others do
                    open(processes.abort_mark(self.socket_path, rank), "wb").close()

    def live(self) -> list[int]:
        """Return the ranks that have started and not ended."""
        return [rank for rank, record in self.records.items() if record["event"] == "start"]

    def terminate(self, already: set[int]) -> list[int]:
        """Send SIGTERM to every live rank not in `already` (through its shim); return those ranks."""
        fresh = [rank for rank in self.live() if rank not in already]
        for rank in fresh:
            shim = self._shims.get(rank)
            if shim is not None:
                self._told[rank] = time.time()
                processes.send(shim, signal.SIGTERM)
        return fresh
