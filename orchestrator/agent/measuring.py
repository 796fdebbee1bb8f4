"""What is asked of a host and its GPUs again and again, and the faults that come to light by it."""

from __future__ import annotations

import collections
import os
import threading
import time
from typing import Any, Callable

from .checks import visible_devices
from .gpus import Gpus
from .kernel_log import KernelLog
from .nvml import LIBRARY
from .sampling import Sampler

_FAULT_SECONDS = 1.0
_LAST_SECONDS = 0.5  # that the end waits for the driver
_STUCK_SECONDS = 30.0
_SAME_SECONDS = 5.0  # within which kernel and driver tell of the same Xid


class GpuWatch:
    """Asks NVML in a thread of its own, and keeps what it said last."""

    def __init__(self, wanted: list[str], interval: float, library: str = LIBRARY) -> None:
        self._wanted = wanted
        self._library = library
        self._interval = interval
        self._faults: collections.deque[dict[str, Any]] = collections.deque()
        self._asked: float | None = None
        self._told_stuck = False
        self._wake = threading.Event()
        self._askers: list[threading.Event] = []
        self._gpus: Gpus | None = None
        self._readings: dict[str, dict[str, Any]] = {}
        self._read_at = float("-inf")

    def start(self) -> None:
        """Begin; where there is no NVML that is all."""
        threading.Thread(target=self._run, name="gpus", daemon=True).start()

    def _run(self) -> None:
        try:
            self._asked = time.monotonic()
            self._gpus = Gpus(self._wanted, self._library)
        except (OSError, UnicodeError):
            self._asked = None
            return
        while True:
            askers, self._askers = self._askers, []  # later ones wait for the next time: this may be over
            try:
                self._ask(self._gpus)
            finally:
                self._asked = None  # whatever went wrong, the driver has answered
            for asker in askers:
                asker.set()
            self._wake.wait(_FAULT_SECONDS)
            self._wake.clear()

    def _ask(self, gpus: Gpus) -> None:
        self._asked = time.monotonic()
        self._faults.extend(gpus.faults())
        if self._asked - self._read_at >= self._interval - _FAULT_SECONDS / 2:
            self._readings = gpus.read()
            self._read_at = self._asked
        self._asked = None

    def ask_now(self) -> None:
        """Ask once more, at the end, as a rank dies at the moment of its GPU's Xid; waits a little for it."""
        if self._gpus is not None:
            answered = threading.Event()
            self._askers.append(answered)
            self._wake.set()
            answered.wait(_LAST_SECONDS)

    def readings(self) -> dict[str, dict[str, Any]]:
        """Return what every GPU was doing when it was last asked, not long ago; else nothing."""
        fresh = time.monotonic() - self._read_at < self._interval + _STUCK_SECONDS
        return self._readings if fresh else {}

    def faults(self) -> list[dict[str, Any]]:
        """Return, once, what the driver has reported, and that it does not answer any more."""
        found = [self._faults.popleft() for _ in range(len(self._faults))]
        asked = self._asked
        if asked is not None and time.monotonic() - asked > _STUCK_SECONDS and not self._told_stuck:
            self._told_stuck = True
            text = f"NVML has not answered for {_STUCK_SECONDS:.0f} s: the GPU driver of this host may hang"
            found.append({"what": "driver", "text": text})
        return found

    def by_bus(self, bus: str) -> int | None:
        """Return the index of the GPU at a bus address; None for a GPU that is not this host's."""
        return None if self._gpus is None else self._gpus.by_bus(bus)

    def is_others(self, bus: str) -> bool:
        """Tell whether the GPU at a bus address is surely another job's, or another simulated host's."""
        return self._gpus is not None and self._gpus.is_others(bus)

    def named(self, name: str) -> str:
        """Return the index of the GPU that CUDA_VISIBLE_DEVICES calls so, as the readings have it."""
        index = None if self._gpus is None else self._gpus.named(name)
        return name if index is None else str(index)


class Measuring:
    """What `HOST.samples` is made of.

    Args:
        path: `HOST.samples`.
        devices: the host's GPUs, as in its entry of the agent's configuration.
        interval: seconds between samples.
        records: returns every rank and its record.
        sizes: returns the sizes of the host's log files by short name (see times.short_names).
    """

    def __init__(
        self,
        path: str,
        devices: list[int],
        interval: float,
        records: Callable[[], list[Any]],
        sizes: Callable[[], dict[str, int]],
    ) -> None:
        self._records = records
        self._sampler = Sampler(path, self._pids, sizes)
        self._devices = visible_devices(dict(os.environ), devices).split(",")
        self._gpus = GpuWatch([name for name in self._devices if name], interval)
        self._kernel = KernelLog()
        self._xids: dict[tuple[Any, Any], float] = {}
        self._gpus.start()

    def _pids(self) -> dict[int, int]:
        return {rank: record["pid"] for rank, record in self._records() if record["event"] == "start"}

    def tell(self, *, last: bool = False) -> None:
        """Write down what has gone wrong since the last time, if anything has."""
        if last:
            self._gpus.ask_now()
        self._sampler.tell(self._faults(last=last))

    def sample(self) -> None:
        """Write a sample down."""
        local = {rank: record["local_rank"] for rank, record in self._records()}
        names = {rank: self._devices[i] for rank, i in local.items() if i < len(self._devices)}
        devices = {rank: self._gpus.named(name) for rank, name in names.items()}
        self._sampler.take(self._gpus.readings(), devices, self._faults())

    def _faults(self, *, last: bool = False) -> list[dict[str, Any]]:
        """Return what is new from the kernel and the driver; an Xid that both tell of is told once."""
        kernel = [self._placed(fault) for fault in self._kernel.new(last=last)]
        ours = [fault for fault in kernel if not fault.pop("other", False) or "rank" in fault]
        return [fault for fault in ours + self._gpus.faults() if self._is_new(fault)]

    def _is_new(self, fault: dict[str, Any]) -> bool:
        now, key = time.monotonic(), (fault.get("gpu"), fault.get("code"))
        before = self._xids.get(key, float("-inf"))
        if fault["what"] == "xid":
            self._xids[key] = now
        return fault["what"] != "xid" or now - before > _SAME_SECONDS

    def _placed(self, fault: dict[str, Any]) -> dict[str, Any]:
        """Return a fault with the rank or the GPU of this host that it is about, where that is known."""
        if "bus" in fault:
            bus = fault.pop("bus")
            gpu = self._gpus.by_bus(bus)
            known = {"other": self._gpus.is_others(bus)} if gpu is None else {"gpu": gpu}
            return {**fault, **known}
        owners = {record["pid"]: rank for rank, record in self._records()}
        rank = {**self._sampler.owners, **owners}.get(fault.get("pid", 0))
        return fault if rank is None else {**fault, "rank": rank}
