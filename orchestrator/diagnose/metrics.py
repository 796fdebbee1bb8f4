"""The last records of `metrics.jsonl` before a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.monitor.records import parsed

if TYPE_CHECKING:
    from pathlib import Path

_TAIL = 1 << 20  # bytes: minutes of even a large run


def last_record(
    path: Path, kind: str, *, attempt: int | None = None, host: str | None = None, until: float | None = None
) -> dict[str, Any]:
    """Return the last record of a kind in the end of the metrics; empty for none.

    Args:
        path: `metrics.jsonl`.
        kind: step, rank, gpu or host (orchestrator.monitor.records).
        attempt: of which it has to be; None for any.
        host: likewise.
        until: it came by then, epoch seconds of the supervisor's clock, with a second to spare.
    """
    needle = f'"{kind}"'.encode()
    for raw in reversed(_end_of(path)):
        record = parsed(raw) if needle in raw else None
        if record is None or record.get("kind") != kind:
            continue
        fits = attempt in {None, record.get("attempt")} and host in {None, record.get("host")}
        if fits and (until is None or float(record.get("time", 0)) <= until + 1):
            return record
    return {}


def _end_of(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().split(b"\n")
    except OSError:
        return []
