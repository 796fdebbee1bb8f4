"""One run in a few values: for `list`, `status` and whoever asks from another machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.progress import progress
from orchestrator.rundir import read_json

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir


def overview(run: RunDir, status: dict[str, Any]) -> dict[str, Any]:
    """Return what `list --json` has of a run.

    Beside run_id, run_dir, created and the status: name, backend, nodes, ranks, started and ended (epoch
    seconds), seconds (from the first start to the end, or to now), progress (see monitor.progress) and
    diagnosis (category and summary); None, or {} for progress, is what is not known or not yet.
    """
    record = run.record()
    return {
        "run_id": run.run_id,
        "run_dir": str(run.path),
        "created": float(record.get("created", time.time())),
        **status,
        "name": record.get("name"),
        **_shape(run),
        **_times(run, record, status),
        "progress": progress(run),
        "diagnosis": _diagnosis(run),
    }


def _shape(run: RunDir) -> dict[str, Any]:
    try:
        plan = run.latest_plan()
    except (OSError, ValueError, TypeError, KeyError):  # half written, or of another version of this program
        return {"backend": None, "nodes": None, "ranks": None}
    return {"backend": plan.backend, "nodes": len(plan.hosts), "ranks": plan.world_size}


def _times(run: RunDir, record: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """Return when the run began and ended; one that is lost without a verdict has an end that nobody saw."""
    verdict = run.verdict() or {}
    started, ended = record.get("started", verdict.get("started")), verdict.get("ended")
    until = ended if status["state"].is_final else time.time()
    seconds = None if started is None or until is None else max(0.0, float(until) - float(started))
    return {"started": started, "ended": ended, "seconds": seconds}


def _diagnosis(run: RunDir) -> dict[str, str] | None:
    found = read_json(run.diagnosis_file)
    if not found or not found.get("category"):
        return None
    return {key: str(found.get(key, "")) for key in ("category", "summary")}
