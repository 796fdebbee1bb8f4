"""What is told of a sweep: that its first point has started, and how all have ended, each once."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.progress import progress
from orchestrator.notify.facts import host_of, shape_words
from orchestrator.notify.message import Message, duration, number_words, reached_words, short
from orchestrator.rundir import read_json
from orchestrator.states import State
from orchestrator.sweep.sweepdir import SweepDir
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir

_MOST = 40  # points that a message lists; a chat shows no more


@dataclass(frozen=True)
class Point:
    """How one point of a sweep has ended.

    Attributes:
        progress: the last step and what was told of it.
    """

    run_id: str
    label: str
    state: State
    reason: str
    progress: dict[str, Any]

    def line(self) -> str:
        """Return it in one line."""
        reached = reached_words(self.progress)
        done = ", ".join(filter(None, [str(self.state), reached]))
        return f"{self.run_id} {self.label}: {done}{'' if self._went_well else f': {self.reason}'}"

    @property
    def _went_well(self) -> bool:
        return self.state in (State.SUCCEEDED, State.CANCELLED) or not self.reason

    def values(self) -> dict[str, Any]:
        """Return it for programs."""
        about = {"run_id": self.run_id, "label": self.label, "state": str(self.state)}
        reached = {name: value for name, value in self.progress.items() if name in ("step", "loss")}
        return {**about, "reason": short(self.reason), **reached}


def sweep_of(run: RunDir) -> SweepDir | None:
    """Return the sweep that a run is a point of; None for any other run."""
    sweep = SweepDir(run.path.parent)
    return sweep if run.record().get("sweep") == sweep.sweep_id and sweep.sweep_file.exists() else None


def first_start(sweep: SweepDir, run: RunDir, plan: LaunchPlan) -> Message | None:
    """Return the message that a sweep has started; None but for the first point that does."""
    if not _is_ours(sweep, "start"):
        return None
    text = f"{_shape(sweep, plan)}\n{run.run_id} is the first\n{_place(run, sweep)}"
    return Message("start", f"{sweep.sweep_id} is running", text, _values("start", sweep, run, plan))


def last_end(sweep: SweepDir, run: RunDir, plan: LaunchPlan) -> Message | None:
    """Return the message that a sweep has ended; None while a point has not, or when another one tells.

    Every point writes its verdict before it looks here: so the last of them sees all.
    """
    points = sweep.points()
    states = [_final_state(one) for _, one in points]
    ended = [state for state in states if state is not None]
    if len(ended) < len(points) or not _is_ours(sweep, "end"):
        return None
    found = [_point(one, point["label"], state) for (point, one), state in zip(points, ended, strict=True)]
    return _end_message(sweep, run, plan, found)


def _is_ours(sweep: SweepDir, occasion: str) -> bool:
    """Tell whether nobody else has told of it; from then on we do."""
    try:
        os.close(os.open(sweep.path / f"told.{occasion}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except OSError:
        return False
    return True


def _final_state(run: RunDir) -> State | None:
    """Return how a point has ended; None for one that goes on, waits, or may be taken over."""
    state: State = run.status()["state"]
    if state.is_final or "supervisor" not in run.record() or run.slurm_job():
        return state if state.is_final else None  # on Slurm, who finds a job gone writes its verdict
    from orchestrator.monitor.status import current_status  # noqa: PLC0415 - few points end so

    attempts = run.attempts()
    waits = bool(attempts) and attempts[-1].control_file.exists()
    state = current_status(run)["state"]
    return state if state.is_final and not waits else None


def _point(run: RunDir, label: str, state: State) -> Point:
    diagnosis = read_json(run.diagnosis_file) or {}
    reason = str(diagnosis.get("summary") or run.status()["reason"])
    return Point(run.run_id, label, state, reason, progress(run))


def _end_message(sweep: SweepDir, run: RunDir, plan: LaunchPlan, points: Sequence[Point]) -> Message:
    from orchestrator.monitor.sweep import sweep_state  # noqa: PLC0415 - it brings what starts runs

    state, words = sweep_state([{"state": point.state} for point in points], driven=False)
    seconds = _seconds(sweep)
    after = "" if seconds is None else f" after {duration(seconds)}"
    order = sorted(points, key=lambda point: point.state is State.SUCCEEDED)  # what went wrong first
    lines = [words, *_best(points), *(point.line() for point in order[:_MOST])]
    lines += [f"and {len(order) - _MOST} more"] if len(order) > _MOST else []
    lines += [_shape(sweep, plan), f"more: orchestrate status {sweep.sweep_id}", _place(run, sweep)]
    values = _values("end", sweep, run, plan) | {"state": str(state), "reason": words, "seconds": seconds}
    values["points"] = [point.values() for point in points]
    text = "\n".join(map(short, lines))
    return Message("end", f"{sweep.sweep_id} {state}{after}", text, values)


def _best(points: Sequence[Point]) -> list[str]:
    """Return which point told the lowest loss last, where that is a choice."""
    told = [
        (one.progress["loss"], one) for one in points if isinstance(one.progress.get("loss"), int | float)
    ]
    if len(told) < 2:
        return []
    loss, best = min(told, key=lambda pair: float(pair[0]))
    return [f"lowest last loss {number_words(loss)}: {best.run_id} {best.label}"]


def _seconds(sweep: SweepDir) -> float | None:
    """Return how long it took since the first point began; None where none ever did."""
    began = [float(run.record()["started"]) for _, run in sweep.points() if run.record().get("started")]
    return max(0.0, time.time() - min(began)) if began else None


def _shape(sweep: SweepDir, plan: LaunchPlan) -> str:
    return f"{counted(len(sweep.points()), 'point')}, each {shape_words(plan)}"


def _place(run: RunDir, sweep: SweepDir) -> str:
    return f"on {host_of(run)}: {sweep.path}"


def _values(event: str, sweep: SweepDir, run: RunDir, plan: LaunchPlan) -> dict[str, Any]:
    """Return what a message has for programs, as that of a run has it."""
    return {
        "event": event,
        "run_id": sweep.sweep_id,
        "name": plan.name,
        "state": str(State.RUNNING),
        "reason": "",
        "category": "",
        "advice": [],
        "seconds": None,
        "shape": _shape(sweep, plan),
        "run_dir": str(sweep.path),
        "host": host_of(run),
    }
