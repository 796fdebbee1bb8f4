"""A run's newest metrics in Prometheus' text format, and a server for it.

The format is 0.0.4 of https://prometheus.io/docs/instrumenting/exposition_formats/, which every version
takes. It is written here and not by prometheus-client, whose registry is made for a process that measures
itself; and it works where only orchestrate is installed.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PREFIX = "orchestrate"
_LABELS = {"step": ("host", "rank"), "rank": ("host", "rank"), "gpu": ("host", "gpu"), "host": ("host",)}
_NOT_VALUES = {"time", "attempt", "kind", "host", "rank", "gpu"}
_UNITS = {
    "step": {"step_time": "step_time_seconds"},
    "gpu": {
        "utilization": "utilization_ratio",
        "memory": "memory_bytes",
        "memory_total": "memory_total_bytes",
        "temperature": "temperature_celsius",
        "power": "power_watts",
        "clock": "clock_mhz",
        "ecc_errors": "ecc_errors",
    },
    "rank": {"cpu": "cpu_cores", "memory": "memory_bytes"},
    "host": {
        "cpu": "cpu_cores",
        "memory": "memory_bytes",
        "memory_total": "memory_total_bytes",
        "disk_free": "disk_free_bytes",
        "sent": "sent_bytes_per_second",
        "received": "received_bytes_per_second",
        "read": "read_bytes_per_second",
        "written": "written_bytes_per_second",
    },
}
_BAD_NAME = re.compile(r"[^a-zA-Z0-9_]")


_OF_RUN = {
    "run_state": "1 for the state that the run is in.",
    "run_attempt": "Which attempt the other metrics are of.",
    "last_metric_timestamp_seconds": "When the newest metric was measured.",
}
Labels = tuple[tuple[str, str], ...]


class Latest:
    """The newest value of every metric of one run, by what it was measured on.

    Attributes:
        values: by kind and key, then by labels.
    """

    def __init__(self, run_id: str) -> None:
        self._run = ("run_id", run_id)
        self.values: dict[tuple[str, str], dict[Labels, float]] = {}
        self._attempt = 0
        self._time = 0.0

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in records, in order; a new attempt forgets the hosts and ranks of the one before."""
        for record in records:
            kind, attempt = record.get("kind"), int(record.get("attempt", 0))
            if kind not in _LABELS or attempt < self._attempt:
                continue
            if attempt > self._attempt:
                self._attempt, self.values = attempt, {}
            self._time = max(self._time, float(record.get("time", 0.0)))
            self._put(str(kind), record)

    def _put(self, kind: str, record: Mapping[str, Any]) -> None:
        labels = (self._run, *((name, str(record.get(name, ""))) for name in _LABELS[kind]))
        told = {**record, "throttled": "throttled" in record} if kind == "gpu" else record
        for key, value in told.items():
            number = None if key in _NOT_VALUES else _number(value)
            if number is not None:
                self.values.setdefault((kind, key), {})[labels] = number

    def of_run(self, state: State) -> Iterator[tuple[str, Labels, float]]:
        """Yield name, labels and value of what is known of the run itself."""
        yield from (("run_state", (self._run, ("state", each)), float(each is state)) for each in State)
        if self._attempt:
            yield "run_attempt", (self._run,), self._attempt
            yield "last_metric_timestamp_seconds", (self._run,), self._time


def text(runs: Sequence[tuple[Latest, State]]) -> str:
    """Return the metrics of runs in Prometheus' format; one that has ended shows its state and no more."""
    families: dict[str, tuple[str, list[str]]] = {}

    def put(name: str, words: str, labels: Labels, value: float) -> None:
        lines = families.setdefault(f"{_PREFIX}_{name}", (words, []))[1]
        told = ",".join(f'{label}="{_escaped(said)}"' for label, said in labels)
        lines.append(f"{_PREFIX}_{name}{{{told}}} {_written(value)}")

    for latest, state in runs:
        for name, labels, value in latest.of_run(state):
            put(name, _OF_RUN[name], labels, value)
        for (kind, key), values in {} if state.is_final else latest.values.items():
            name, words = _name(kind, key), f"{_escaped(key)} of a {kind}, as in metrics.jsonl."
            for labels, value in values.items():
                put(name, words, labels, value)
    return "".join(_family(name, words, lines) for name, (words, lines) in families.items())


def _family(name: str, words: str, lines: Sequence[str]) -> str:
    """Return all lines of one metric, which have to stand together."""
    return "\n".join([f"# HELP {name} {words}", f"# TYPE {name} gauge", *lines, ""])


def _name(kind: str, key: str) -> str:
    """Return what Prometheus calls a metric: with its unit, as its naming rules ask."""
    words = _BAD_NAME.sub("_", _UNITS[kind].get(key, key))
    return words if kind == "step" else f"{kind}_{words}"


def _number(value: Any) -> float | None:
    """Return a number, also one that JSON has no word for; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _written(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else f"{value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
