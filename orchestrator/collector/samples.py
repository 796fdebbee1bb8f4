"""The agents' measurements as records of `metrics.jsonl`, and the faults among them as events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of a host.

    Attributes:
        time: epoch seconds of the supervisor's clock.
        host: what was measured of the host (see monitor/records.py).
        ranks: by rank.
        gpus: by index.
        faults: what the kernel's log told since the last one.
    """

    time: float
    host: dict[str, float] = field(default_factory=dict)
    ranks: dict[int, dict[str, float]] = field(default_factory=dict)
    gpus: dict[int, dict[str, Any]] = field(default_factory=dict)
    faults: tuple[dict[str, Any], ...] = ()


def parse_sample(line: bytes, offset: float) -> Sample | None:
    """Return a line of `HOST.samples`; None when it is none.

    Args:
        line: a JSON object.
        offset: how far the host's clock is ahead of the supervisor's, seconds.
    """
    try:
        found = json.loads(line)
        return Sample(
            time=round(float(found["time"]) - offset, 3),
            host=_numbers(found.get("host")),
            ranks={int(rank): _numbers(of) for rank, of in (found.get("ranks") or {}).items()},
            gpus={int(gpu): dict(of) for gpu, of in (found.get("gpus") or {}).items()},
            faults=tuple(found.get("faults") or ()),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _numbers(of: dict[str, Any] | None) -> dict[str, float]:
    return {name: value for name, value in (of or {}).items() if isinstance(value, int | float)}


def records_of(sample: Sample, host: str, attempt: int) -> list[dict[str, Any]]:
    """Return a measurement as records, one for the host and one for each rank and GPU."""
    base = {"time": sample.time, "attempt": attempt}
    records: list[dict[str, Any]] = []
    if sample.host:
        records.append({**base, "kind": "host", "host": host, **sample.host})
    records += [
        {**base, "kind": "rank", "host": host, "rank": rank, **of} for rank, of in sample.ranks.items()
    ]
    records += [{**base, "kind": "gpu", "host": host, "gpu": gpu, **of} for gpu, of in sample.gpus.items()]
    return records


def faults_of(sample: Sample, host: str) -> list[dict[str, Any]]:
    """Return the faults as the events `oom_kill` and `gpu_fault`."""
    events = []
    for fault in sample.faults:
        kind = "oom_kill" if fault.get("what") == "oom_kill" else "gpu_fault"
        events.append({"time": sample.time, "event": kind, "host": host, **fault})
    return events
