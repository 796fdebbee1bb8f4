"""What the points of a sweep are doing, and their end."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.cancel import cancel, cancel_unbegun
from orchestrator.monitor.status import statuses
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.sweep.sweepdir import SweepDir


def point_rows(sweep: SweepDir) -> list[dict[str, Any]]:
    """Return run_id, label, state, since, reason and run_dir of every point, in order."""
    points = sweep.points()
    found = statuses([run for _, run in points])
    return [
        {"run_id": run.run_id, "label": point["label"], "run_dir": str(run.path), **status}
        for (point, run), status in zip(points, found, strict=True)
    ]


def sweep_state(rows: list[dict[str, Any]], *, driven: bool) -> tuple[State, str]:
    """Return a sweep's state and the counts behind it.

    Args:
        rows: of point_rows.
        driven: a process, or Slurm, will start what still waits.
    """
    counts = Counter(row["state"] for row in rows)
    names = {State.PENDING: "waiting"}
    words = ", ".join(f"{count} {names.get(state, state)}" for state, count in counts.items())
    if all(state.is_final for state in counts):
        return (State.SUCCEEDED if set(counts) == {State.SUCCEEDED} else _worst(counts)), words
    if any(not state.is_final and state is not State.PENDING for state in counts):
        return State.RUNNING, words
    return (State.PENDING, words) if driven else (State.LOST, f"{words}; nobody starts what waits")


def _worst(counts: Counter[State]) -> State:
    order = (State.FAILED, State.LOST, State.TIMEOUT, State.PREEMPTED, State.CANCELLED)
    return next(state for state in order if counts[state])


def is_driven(sweep: SweepDir) -> bool:
    """Tell whether the points that wait will be started by somebody."""
    return sweep.batch_script.exists() or sweep.is_driven()


def cancel_sweep(sweep: SweepDir) -> tuple[State, str]:
    """End every point: those that wait never begin. Waits until all have ended."""
    sweep.cancel_file.touch()
    points = sweep.points()
    if sweep.batch_script.exists():
        arrays = {str(run.slurm_job().get("job_id", "")).partition("_")[0] for _, run in points}
        for array in arrays - {""}:  # at once: a point that ends would make room for the next
            subprocess.run(["scancel", "--state=PENDING", array], capture_output=True, check=False)
    begun = [run for _, run in points if not cancel_unbegun(run)]
    for run in begun:  # all first, so that they end at the same time
        with contextlib.suppress(OSError):
            run.cancel_file.touch()
    for run in begun:
        cancel(run)
    return sweep_state(point_rows(sweep), driven=True)


def wait_for_change(sweep: SweepDir, before: list[tuple[str, State]], seconds: float) -> list[dict[str, Any]]:
    """Return the rows of a sweep as soon as a state differs from `before`, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        rows = point_rows(sweep)
        if [(row["run_id"], row["state"]) for row in rows] != before or time.monotonic() > deadline:
            return rows
        time.sleep(0.5)
