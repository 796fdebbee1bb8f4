"""Measure this host in threads of their own: a disk or a GPU's driver that hangs holds up no word of ours.

One thread writes `HOST.samples` and, where the disk is the supervisor's own, `HOST.times`. Another one asks
NVML: of all that is asked here, a GPU's driver is what hangs most.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from typing import Any, Callable

from .checks import visible_devices
from .flushing import Flusher
from .gpus import Gpus
from .kernel_log import KernelLog
from .sampling import Sampler
from .times import LOOK_SECONDS, Times, long_name, shared_sizes

_FAULT_SECONDS = 1.0
_FLUSH_SECONDS = 1.0
_SPREAD = 0.618  # the golden section: hosts' moments lie evenly in the interval, however many there are
_STUCK_SECONDS = 30.0
_SAME_SECONDS = 5.0  # within which kernel and driver tell of the same Xid
_LAST_SECONDS = 1.0  # that the end waits for the last sample


class GpuWatch:
    """Asks NVML in a thread of its own, and keeps what it said last."""

    def __init__(self, wanted: list[str], interval: float) -> None:
        self._wanted = wanted
        self._interval = interval
        self._faults: collections.deque[dict[str, Any]] = collections.deque()
        self._asked: float | None = None
        self._told_stuck = False
        self._gpus: Gpus | None = None
        self._readings: dict[str, dict[str, Any]] = {}
        self._read_at = float("-inf")

    def start(self) -> None:
        """Begin; where there is no NVML that is all."""
        threading.Thread(target=self._run, name="gpus", daemon=True).start()

    def _run(self) -> None:
        try:
            self._asked = time.monotonic()
            self._gpus = Gpus(self._wanted)
        except (OSError, UnicodeError):
            self._asked = None
            return
        while True:
            self._ask(self._gpus)
            time.sleep(_FAULT_SECONDS)

    def _ask(self, gpus: Gpus) -> None:
        self._asked = time.monotonic()
        self._faults.extend(gpus.faults())
        if self._asked - self._read_at >= self._interval - _FAULT_SECONDS / 2:
            self._readings = gpus.read()
            self._read_at = self._asked
        self._asked = None

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


class Watch:
    """Everything that is measured on this host.

    Args:
        config: the agent's configuration (logs, sample_interval).
        host: this host's entry in it.
        records: returns the records of the ranks by rank; asked by another thread.
        shared: the log files here are the supervisor's own.
    """

    def __init__(
        self, config: dict[str, Any], host: dict[str, Any], records: Callable[[], list[Any]], *, shared: bool
    ) -> None:
        self._interval = float(config.get("sample_interval", 10.0))
        self._phase = host["index"] * _SPREAD % 1
        self._records = records
        self._shared = shared
        self._logs, self._name = config["logs"], host["file_name"]
        stem = os.path.join(self._logs, self._name)
        self.sizes: dict[str, int] = {}
        self.times = Times(stem + ".times", lambda: self.sizes)
        self._sampler = Sampler(stem + ".samples", self._pids, lambda: self.sizes)
        self._devices = visible_devices(dict(os.environ), host["devices"]).split(",")
        self._gpus = GpuWatch([name for name in self._devices if name], self._interval)
        self._kernel: KernelLog | None = None
        self._xids: dict[tuple[Any, Any], float] = {}
        self._flusher = Flusher(self._logs)
        self._next_flush = 0.0
        self._ending = threading.Event()
        self._done = threading.Event()
        self._end_by: float | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._gpus.start()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def finish(self) -> bool:
        """Have the last lines written; tell whether they are, or cannot be. Never waits."""
        now = time.monotonic()
        if self._end_by is None:
            self._end_by = now + _LAST_SECONDS
            self._ending.set()
        return self._done.is_set() or now > self._end_by

    def _pids(self) -> dict[int, int]:
        return {rank: record["pid"] for rank, record in self._records() if record["event"] == "start"}

    def _run(self) -> None:
        self._kernel = KernelLog()
        due = [0.0, 0.0]  # the next look for faults, the next sample
        while not self._ending.wait(LOOK_SECONDS if self._shared else _FAULT_SECONDS):
            self._look()
            now = time.monotonic()
            if now >= due[1]:
                due[1] = now + self._interval * ((1 + self._phase) if due[1] == 0.0 else 1)
                self._sample()
            elif now >= due[0]:
                self._sampler.tell(self._faults())
            due[0] = now + _FAULT_SECONDS if now >= due[0] else due[0]
        self._look(last=True)
        self._sampler.tell(self._faults())
        self._done.set()

    def _look(self, *, last: bool = False) -> None:
        if self._shared:
            self.sizes = shared_sizes(self._logs, self._name, [rank for rank, _ in self._records()])
            self.times.look(time.time(), last=last)
            self._flush(last=last)

    def _flush(self, *, last: bool) -> None:
        """Send what was written once a second: the index after the logs that it tells of."""
        now = time.monotonic()
        if not self._flusher.needed or (now < self._next_flush and not last):
            return
        self._next_flush = now + _FLUSH_SECONDS
        self._flusher.flush({long_name(self._name, short): size for short, size in self.sizes.items()})
        for kind in ("times", "samples"):
            self._flusher.flush({f"{self._name}.{kind}": int(now)})

    def _sample(self) -> None:
        local = {rank: record["local_rank"] for rank, record in self._records()}
        devices = {rank: self._devices[i] for rank, i in local.items() if i < len(self._devices)}
        self._sampler.take(self._gpus.readings(), devices, self._faults())

    def _faults(self) -> list[dict[str, Any]]:
        """Return what is new from the kernel and the driver; an Xid that both tell of is told once."""
        kernel = [] if self._kernel is None else [self._placed(fault) for fault in self._kernel.new()]
        return [fault for fault in kernel + self._gpus.faults() if self._is_new(fault)]

    def _is_new(self, fault: dict[str, Any]) -> bool:
        now, key = time.monotonic(), (fault.get("gpu"), fault.get("code"))
        before = self._xids.get(key, float("-inf"))
        if fault["what"] == "xid":
            self._xids[key] = now
        return fault["what"] != "xid" or now - before > _SAME_SECONDS

    def _placed(self, fault: dict[str, Any]) -> dict[str, Any]:
        """Return a fault with the rank or the GPU of this host that it is about, where that is known."""
        if "bus" in fault:
            gpu = self._gpus.by_bus(fault.pop("bus"))
            return fault if gpu is None else {**fault, "gpu": gpu}
        owners = {record["pid"]: rank for rank, record in self._records()}
        rank = {**self._sampler.owners, **owners}.get(fault.get("pid", 0))
        return fault if rank is None else {**fault, "rank": rank}
