"""Measure this host in threads of their own: a disk or a GPU's driver that hangs holds up no word of ours.

One thread writes `HOST.samples` and, where the disk is the supervisor's own, `HOST.times`. Another one asks
NVML: of all that is asked here, a GPU's driver is what hangs most.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, Callable

from .times import LOOK_SECONDS, Times, long_name, shared_sizes

_FAULT_SECONDS = 1.0
_FLUSH_SECONDS = 1.0
_SPREAD = 0.618  # the golden section: hosts' moments lie evenly in the interval, however many there are
_LAST_SECONDS = 5.0  # that the end waits for the last lines, where the disk or the host is slow


class Watch:
    """Everything that is measured on this host.

    Args:
        config: the agent's configuration (logs, sample_interval).
        host: this host's entry in it.
        records: returns every rank and its record; asked by another thread.
        shared: the log files here are the supervisor's own.

    Attributes:
        sizes: of the host's log files by short name; who sends them sets it where the disk is not shared.
        times: the index of the log files.
    """

    def __init__(
        self, config: dict[str, Any], host: dict[str, Any], records: Callable[[], list[Any]], *, shared: bool
    ) -> None:
        self._interval = float(config["sample_interval"])
        self._phase = host["index"] * _SPREAD % 1
        self._devices: list[int] = host["devices"]
        self._records = records
        self._shared = shared
        self._logs, self._name = config["logs"], host["file_name"]
        self._stem = os.path.join(self._logs, self._name)
        self.sizes: dict[str, int] = {}
        self.times = Times(self._stem + ".times", lambda: self.sizes)
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._done = threading.Event()
        self._end_by: float | None = None

    def start(self) -> None:
        """Begin to measure; does nothing the second time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def finish(self) -> bool:
        """Have the last lines written; tell whether they are, or cannot be. Never waits."""
        now = time.monotonic()
        if self._end_by is None:
            self._end_by = now + _LAST_SECONDS
            self._ending.set()
        return self._thread is None or self._done.is_set() or now > self._end_by

    def _run(self) -> None:
        # Only now, and here: the ranks' start does not wait until it is compiled.
        from .flushing import Flusher  # noqa: PLC0415
        from .measuring import Measuring  # noqa: PLC0415

        path = self._stem + ".samples"
        measuring = Measuring(path, self._devices, self._interval, self._records, lambda: self.sizes)
        self._flusher, self._next_flush = Flusher(self._logs), 0.0
        next_look, next_sample = 0.0, 0.0
        while not self._ending.wait(LOOK_SECONDS if self._shared else _FAULT_SECONDS):
            self._look()
            now = time.monotonic()
            if now >= next_sample:
                next_sample = now + self._interval * (1 if next_sample else 1 + self._phase)
                measuring.sample()
            elif now >= next_look:
                next_look = now + _FAULT_SECONDS
                measuring.tell()
        self._look(last=True)
        measuring.tell(last=True)
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
            with contextlib.suppress(OSError):
                self._flusher.flush({f"{self._name}.{kind}": os.stat(f"{self._stem}.{kind}").st_size})
