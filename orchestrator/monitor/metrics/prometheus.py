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
    from collections.abc import Iterable, Iterator, Mapping

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


class Latest:
    """The newest value of every metric of one run, by what it was measured on."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._values: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]] = {}
        self._attempt = 0
        self._time = 0.0

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Take in records, in order; a new attempt forgets the hosts and ranks of the one before."""
        for record in records:
            kind, attempt = record.get("kind"), int(record.get("attempt", 0))
            if kind not in _LABELS or attempt < self._attempt:
                continue
            if attempt > self._attempt:
                self._attempt, self._values = attempt, {}
            self._time = max(self._time, float(record.get("time", 0.0)))
            self._put(str(kind), record)

    def _put(self, kind: str, record: Mapping[str, Any]) -> None:
        labels = tuple((name, str(record.get(name, ""))) for name in _LABELS[kind])
        told = {**record, "throttled": "throttled" in record} if kind == "gpu" else record
        for key, value in told.items():
            number = None if key in _NOT_VALUES else _number(value)
            if number is not None:
                self._values.setdefault((kind, key), {})[labels] = number

    def text(self, state: State) -> str:
        """Return all of it in Prometheus' format; a run that has ended shows its state alone.

        Args:
            state: the run's.
        """
        return "\n".join([*self._lines(state), ""])

    def _lines(self, state: State) -> Iterator[str]:
        run = f'run_id="{_escaped(self._run_id)}"'
        yield f"# HELP {_PREFIX}_run_state 1 for the state that the run is in."
        yield f"# TYPE {_PREFIX}_run_state gauge"
        yield from (f'{_PREFIX}_run_state{{{run},state="{each}"}} {int(each is state)}' for each in State)
        if self._attempt:
            yield f"# HELP {_PREFIX}_run_attempt Which attempt the other metrics are of."
            yield f"# TYPE {_PREFIX}_run_attempt gauge"
            yield f"{_PREFIX}_run_attempt{{{run}}} {self._attempt}"
            yield f"# HELP {_PREFIX}_last_metric_timestamp_seconds When the newest metric was measured."
            yield f"# TYPE {_PREFIX}_last_metric_timestamp_seconds gauge"
            yield f"{_PREFIX}_last_metric_timestamp_seconds{{{run}}} {self._time!r}"
        for (kind, key), values in {} if state.is_final else self._values.items():
            name = _name(kind, key)
            yield f"# HELP {name} {_escaped(key)} of a {kind}, as in metrics.jsonl."
            yield f"# TYPE {name} gauge"
            for labels, value in values.items():
                words = "".join(f',{label}="{_escaped(text)}"' for label, text in labels)
                yield f"{name}{{{run}{words}}} {_written(value)}"


def _name(kind: str, key: str) -> str:
    """Return what Prometheus calls a metric: with its unit, as its naming rules ask."""
    words = _BAD_NAME.sub("_", _UNITS[kind].get(key, key))
    return f"{_PREFIX}_{words}" if kind == "step" else f"{_PREFIX}_{kind}_{words}"


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
