"""What this host and its ranks are doing, every few seconds: `HOST.samples`, one JSON object a line.

    {"time": ..., "host": {...}, "ranks": {"0": {...}}, "gpus": {"0": {...}}, "faults": [...]}

`time` is in this host's clock. Host-wide rates are bytes a second, `cpu` is in cores, memory in bytes; what
is not known is absent. `faults` is there when the kernel or a GPU's driver has told of something since the
last line.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict

from . import host_facts
from .times import LineFile
from .trees import Rates, Trees

Pids = Callable[[], Dict[int, int]]
_RATES = ("sent", "received", "read", "written")


class Sampler:
    """Takes samples and writes them down.

    Args:
        path: `HOST.samples`.
        pids: returns the pids of the ranks that run, by rank.
        sizes: returns the sizes of the host's log files by short name (see times.short_names).

    Attributes:
        owners: the rank of each process that was seen in a rank's tree.
    """

    def __init__(self, path: str, pids: Pids, sizes: Callable[[], dict[str, int]]) -> None:
        self._file = LineFile(path)
        self._folder = os.path.dirname(path)
        self._pids = pids
        self._sizes = sizes
        self._rates = Rates()
        self._trees = Trees(os.getpid())
        self.owners: dict[int, int] = {}

    def take(
        self, gpus: dict[str, dict[str, Any]], devices: dict[int, str], faults: list[dict[str, Any]]
    ) -> None:
        """Write a sample of everything down.

        Args:
            gpus: the last readings by GPU (see gpus.Gpus).
            devices: the GPU of each rank, where ranks have one each.
            faults: what has gone wrong since the last line.
        """
        ranks = self._ranks()
        for rank, gpu in devices.items():
            if str(rank) in ranks and gpu in gpus:
                ranks[str(rank)]["gpu"] = int(gpu)
                if "utilization" in gpus[gpu]:
                    ranks[str(rank)]["gpu_busy"] = gpus[gpu]["utilization"]
        self._write({"host": self._host(), "ranks": ranks, "gpus": gpus}, faults)

    def tell(self, faults: list[dict[str, Any]]) -> None:
        """Write faults down at once, without waiting for the next sample."""
        if faults:
            self._write({}, faults)

    def _write(self, sample: dict[str, Any], faults: list[dict[str, Any]]) -> None:
        told = {"time": round(time.time(), 3), **{key: value for key, value in sample.items() if value}}
        if faults:
            told["faults"] = faults
        self._file.add(json.dumps(told, separators=(",", ":")).encode() + b"\n")

    def _host(self) -> dict[str, float]:
        found = host_facts.state(self._folder)
        now = time.monotonic()
        for name, value in host_facts.counters().items():
            rate = self._rates.rate(name, value, now)
            if rate is not None:
                found[name] = round(rate, 2) if name == "cpu" else int(rate)
        return found

    def _ranks(self) -> dict[str, dict[str, Any]]:
        pids, sizes = self._pids(), self._sizes()
        if not pids:
            return {}
        uses = self._trees.read(pids.values())
        now = time.monotonic()
        found: dict[str, dict[str, Any]] = {}
        for rank, pid in sorted(pids.items()):
            if pid not in uses:
                continue
            self.owners.update(dict.fromkeys((use.pid for use in uses[pid]), rank))
            own = found[str(rank)] = {
                "memory": sum(use.pages for use in uses[pid]) * os.sysconf("SC_PAGE_SIZE")
            }
            ticks = sum(use.ticks for use in uses[pid])
            cores = self._rates.rate(f"rank {rank}", ticks / os.sysconf("SC_CLK_TCK"), now)
            if cores is not None:
                own["cpu"] = round(cores, 3)
            own["log_bytes"] = sizes.get(f"{rank}.out", 0) + sizes.get(f"{rank}.err", 0)
        return found
