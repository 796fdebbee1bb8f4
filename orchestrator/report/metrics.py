"""What a run's `metrics.jsonl` says in sum: curves, bands over all hosts, a line of figures for every host.

The file is read once and may be larger than the memory; orchestrator/monitor/records.py says what is in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from orchestrator.report.goodput import apart
from orchestrator.report.series import Band, Curve, Tally, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_OF_A_RANK = b'"kind": "rank"'
CURVES = (
    *("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "samples_per_second"),
    *("step_time", "tflops", "mfu", "loss_scale"),
)
_TOLD = {
    "gpu": ("memory_total", "ecc_errors"),
    "host": ("memory_total", "cores", "disk_free"),
    "rank": (),
}
_BANDS = {
    "gpu": ("utilization", "memory", "temperature", "power"),
    "host": ("memory", "cpu", "sent", "received"),
    "rank": ("cpu", "memory"),
}


def wanted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a `metrics.jsonl`; those of ranks' memory only until a host's own is there.

    They are half of a large file, and with hosts' memory nobody looks at them.
    """
    hosts_told = False
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if hosts_told and _OF_A_RANK in line:
                continue
            record = _parsed(line)
            if record is not None:
                hosts_told = hosts_told or record.get("kind") == "host"
                yield record


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:  # half a line is being written
        return None
    return value if isinstance(value, dict) else None


class Progress:
    """When which step was reported, by attempt, as the rank with the lowest number told it: all of it."""

    def __init__(self) -> None:
        self._rank: int | None = None
        self._by_attempt: dict[int, tuple[array[float], array[float]]] = {}

    def add(self, record: dict[str, Any], step: float) -> None:
        """Add a report; a second one of the same step says nothing new."""
        rank = int(record.get("rank", 0))
        if self._rank is None or rank < self._rank:
            self._rank, self._by_attempt = rank, {}
        if rank != self._rank:
            return
        empty: tuple[array[float], array[float]] = (array("d"), array("d"))
        times, steps = self._by_attempt.setdefault(int(record.get("attempt", 1)), empty)
        if not steps or (step != steps[-1] and record["time"] >= times[-1]):
            times.append(float(record["time"]))
            steps.append(step)

    def of(self, attempt: int) -> tuple[array[float], array[float]]:
        """Return the times (epoch seconds) and numbers of an attempt's steps."""
        return self._by_attempt.get(attempt, (array("d"), array("d")))

    def last_step(self) -> float | None:
        """Return the highest step that was reported; None where there was none."""
        return max((max(steps) for _, steps in self._by_attempt.values() if steps), default=None)

    def gaps(self) -> Iterator[tuple[int, float, float, float]]:
        """Yield attempt, step, time of its report and seconds of a step between this and one before."""
        for attempt, (times, steps) in self._by_attempt.items():
            pairs = apart(times, steps, 1.0)
            for (before, after), (since, to) in zip(*map(pairwise, pairs), strict=True):
                if to > since:
                    yield attempt, to, after, (after - before) / (to - since)


class Totals:
    """Sums of one host's samples."""

    def __init__(self) -> None:
        self._tallies: dict[str, Tally] = {}
        self.throttled = 0
        self.gpu_samples = 0

    def add(self, name: str, value: float) -> None:
        """Add a value that is a number."""
        tally = self._tallies.get(name)
        if tally is None:
            tally = self._tallies[name] = Tally()
        tally.add(value)

    def _of(self, what: str, name: str) -> float | None:
        tally = self._tallies.get(name)
        return None if tally is None else float(getattr(tally, what))

    def to_json(self) -> dict[str, Any]:
        """Return the figures of one line of the table; what was never told is absent."""
        told = {
            "gpu_utilization": self._of("mean", "gpu.utilization"),
            "gpu_memory": self._of("high", "gpu.memory"),
            "gpu_memory_total": self._of("high", "gpu.memory_total"),
            "temperature": self._of("high", "gpu.temperature"),
            "power": self._of("mean", "gpu.power"),
            "throttled": self.throttled / self.gpu_samples if self.gpu_samples else None,
            "ecc_errors": self._of("high", "gpu.ecc_errors"),
            "cpu": self._of("mean", "host.cpu"),
            "cores": self._of("high", "host.cores"),
            "memory": self._of("high", "host.memory"),
            "memory_total": self._of("high", "host.memory_total"),
            "network": _sum(self._of("mean", "host.sent"), self._of("mean", "host.received")),
            "disk_free": self._of("low", "host.disk_free"),
            "step_time": self._of("mean", "step.step_time"),
        }
        return {name: _short(value) for name, value in told.items() if value is not None}


def _sum(*values: float | None) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) if found else None


def _short(value: float) -> float:
    return int(value) if value == int(value) else float(f"{value:.4g}")


class Metrics:
    """Everything that `metrics.jsonl` is read for.

    Args:
        start: epoch seconds of the run's first attempt.
        end: epoch seconds of its end, or of now.
    """

    def __init__(self, start: float, end: float) -> None:
        self.progress = Progress()
        self.curves = {name: Curve() for name in CURVES}
        self.hosts: dict[str, Totals] = {}
        self.bands = {
            f"{kind}.{name}": Band(start, end)
            for kind, names in (*_BANDS.items(), ("step", ("step_time",)))
            for name in names
        }
        self._fields = {
            kind: [
                (name, f"{kind}.{name}", self.bands.get(f"{kind}.{name}")) for name in (*names, *_TOLD[kind])
            ]
            for kind, names in _BANDS.items()
        }
        self.gpus = False
        self._means: dict[str, Tally] = {}
        self._took = array("d")

    def take(self, records: Iterable[dict[str, Any]]) -> None:
        """Read records; one that lacks what every one has is left out."""
        for record in records:
            kind = record.get("kind")
            if not isinstance(record.get("time"), int | float):
                continue
            if kind == "step":
                self._take_step(record)
            elif kind in _BANDS:
                self._take_sample(str(kind), record)

    def mean(self, name: str) -> float | None:
        """Return the mean of a curve's values; None where there is none."""
        tally = self._means.get(name)
        return None if tally is None else tally.mean

    def step_seconds(self) -> tuple[float, float] | None:
        """Return median and 99th percentile of the seconds that a step took; None for too few reports.

        They are the script's own where it told them: the time between reports holds saves and evaluations.
        """
        found = sorted(self._took or (gap for *_, gap in self.progress.gaps()))
        return (statistics.median(found), found[len(found) * 99 // 100]) if found else None

    def step_times(self) -> Curve:
        """Return the seconds of each step, from the times of its reports, where no script told them."""
        curve = Curve()
        for attempt, step, time, gap in self.progress.gaps():
            curve.add({"attempt": attempt, "step": step, "time": time}, gap)
        return curve

    def _take_step(self, record: dict[str, Any]) -> None:
        step = number(record.get("step"))
        if step is not None and math.isfinite(step):
            self.progress.add(record, step)
        for name in CURVES:
            value = number(record.get(name))
            if value is None:
                continue
            curve = self.curves[name]
            curve.add(record, value)
            if record.get("rank", 0) == curve.rank and math.isfinite(value):
                self._means.setdefault(name, Tally()).add(value)
        took = number(record.get("step_time"))
        if took is not None and math.isfinite(took):
            if record.get("rank", 0) == self.curves["step_time"].rank:
                self._took.append(took)
            self.bands["step.step_time"].add(record["time"], took)
            self._totals(record).add("step.step_time", took)

    def _take_sample(self, kind: str, record: dict[str, Any]) -> None:
        totals, time = self._totals(record), record["time"]
        for name, full, band in self._fields[kind]:
            value = number(record.get(name))
            if value is None or not math.isfinite(value):
                continue
            totals.add(full, value)
            if band is not None:
                band.add(time, value)
        if kind == "gpu":
            self.gpus = True
            totals.gpu_samples += 1
            totals.throttled += "throttled" in record

    def _totals(self, record: dict[str, Any]) -> Totals:
        return self.hosts.setdefault(str(record.get("host", "")), Totals())
