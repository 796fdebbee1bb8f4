"""Everything a report shows, as one JSON object: read from a run's directory, which need not be over."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator import __version__
from orchestrator.monitor.records import Records
from orchestrator.monitor.status import current_status, host_rows
from orchestrator.report.course import Known, Told, beginnings, course
from orchestrator.report.excerpts import excerpts, job_text, software, without_secrets
from orchestrator.report.goodput import Goodput, account
from orchestrator.report.happenings import happenings, said_of_hosts
from orchestrator.report.metrics import Metrics, wanted
from orchestrator.report.ran import what_ran
from orchestrator.rundir import read_json
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.report.goodput import Course
    from orchestrator.rundir import AttemptDir, RunDir

VERSION = 1
"""Of the document's form: a later one may add keys, and another number says that it changed some."""


@dataclass(frozen=True, slots=True)
class _Parts:
    run: RunDir
    plan: LaunchPlan
    status: dict[str, Any]
    verdict: dict[str, Any]
    events: list[dict[str, Any]]
    metrics: Metrics
    known: Known
    told: list[Told]


def document(run: RunDir, now: float | None = None) -> dict[str, Any]:
    """Return a run as one JSON object.

    Args:
        run: the run, over or not.
        now: epoch seconds; by default the clock's.

    Raises:
        OSError, ValueError: its plan cannot be read.
    """
    parts = _read(run, time.time() if now is None else now)
    passed = course(parts.known, parts.told, parts.events, parts.metrics.progress)
    goodput = account(passed)
    return {
        "document": VERSION,
        "orchestrate": __version__,
        "made": parts.known.now,
        **_head(parts, passed),
        "ran": what_ran(run, parts.plan),
        "software": software(run),
        "verdict": _verdict(parts),
        "goodput": _goodput_json(goodput, parts, passed),
        "attempts": _attempts(parts, passed),
        "figures": _figures(parts),
        "series": _series(parts.metrics),
        "hosts": _hosts(parts),
        "events": happenings(parts.events),
        "excerpts": excerpts(run, parts.verdict, parts.events),
        "job": job_text(run),
    }


def _read(run: RunDir, now: float) -> _Parts:
    status, plan = current_status(run), run.latest_plan()
    verdict = run.verdict() or {}
    events = [event for event in Records(run.events_file).new() if "event" in event and "time" in event]
    state: State = status["state"]
    over = state if state.is_final else None
    ended = None if over is None else float(verdict.get("ended") or _last_word(events, status) or now)
    known = Known(
        created=float(run.record().get("created") or plan.created),
        now=now,
        over=over,
        ended=ended,
        queued=plan.slurm is not None and not plan.slurm.in_allocation,
        saves_here=plan.checkpoint_dir is not None,
    )
    known = _not_before_its_events(known, events)
    metrics = Metrics(known.created, known.ended or now)
    metrics.take(wanted(run.metrics_file))
    told = [_told(run, attempt) for attempt in run.attempts()]
    begun = beginnings(told, events, known)
    told = [one for one in told if one.number in begun]
    return _Parts(run, plan, status, verdict, events, metrics, known, told)


def _last_word(events: list[dict[str, Any]], status: dict[str, Any]) -> float:
    """Return when a run was last heard of that left no verdict (epoch seconds)."""
    return float(events[-1]["time"] if events else status["since"] or 0.0)


def _not_before_its_events(known: Known, events: list[dict[str, Any]]) -> Known:
    """Return a run that was not submitted after what it did: its directory may be a copy."""
    from dataclasses import replace  # noqa: PLC0415 - seldom

    if not events or events[0]["time"] >= known.created:
        return known
    return replace(known, created=float(events[0]["time"]))


def _told(run: RunDir, attempt: AttemptDir) -> Told:
    verdict = read_json(attempt.verdict_file) or {}
    plan = run.plan(attempt)
    state = verdict.get("state")
    return Told(
        attempt.number,
        state=State(state) if state in list(State) else None,
        summary=str(verdict.get("summary", "")),
        ended=verdict.get("ended"),
        failed=(verdict.get("first_failure") or {}).get("time"),
        resume_tag=plan.resume_tag,
        hosts=len(plan.hosts),
        ranks=plan.world_size,
    )


def _head(parts: _Parts, passed: Course) -> dict[str, Any]:
    return {
        "run_id": parts.run.run_id,
        "name": parts.plan.name,
        "run_dir": str(parts.run.path),
        "state": str(parts.status["state"]),
        "reason": parts.status["reason"],
        "over": parts.known.over is not None,
        "created": passed.created,
        "ended": passed.ended,
    }


def _verdict(parts: _Parts) -> dict[str, Any]:
    """Return the diagnosis where there is one, with the verdict's own words where it says nothing."""
    found = _diagnosis(parts)
    first = parts.verdict.get("first_failure") or {}
    own = {"summary": parts.verdict.get("summary", ""), **{k: first.get(k) for k in _CAUSE}}
    return own | {name: value for name, value in found.items() if value not in (None, "", [])}


_CAUSE = ("host", "rank", "local_rank", "time", "message")


def _diagnosis(parts: _Parts) -> dict[str, Any]:
    found = read_json(parts.run.diagnosis_file)
    if found is not None or parts.known.over in (None, State.SUCCEEDED):
        return found or {}
    try:
        from orchestrator.diagnose import diagnose  # noqa: PLC0415 - it reads logs; one was mostly kept

        return dict(diagnose(parts.run).to_json())
    except Exception:  # noqa: BLE001 - a report without the cause is better than none
        return {}


def _goodput_json(goodput: Goodput, parts: _Parts, passed: Course) -> dict[str, Any]:
    held = sum(
        (one.ended - one.began) * told.ranks for one, told in zip(passed.attempts, parts.told, strict=True)
    )
    return {
        "wall": goodput.wall,
        "share": goodput.share,
        "seconds": dict(goodput.seconds),
        "rank_seconds": held,
        "segments": [list(segment) for segment in goodput.segments],
        "notes": list(_notes(parts, goodput)),
    }


def _notes(parts: _Parts, goodput: Goodput) -> list[str]:
    notes = []
    if goodput.share is None and goodput.wall:
        notes.append(
            "No line of the logs told of a step, so time that made steps cannot be told from other time."
        )
    unwatched = parts.plan.checkpoint_dir is None and parts.known.over not in (None, State.SUCCEEDED)
    if unwatched and goodput.share is not None:
        notes.append(
            "train.checkpoint_dir is not set: which steps were kept is not known; all count as productive."
        )
    return notes


def _attempts(parts: _Parts, passed: Course) -> list[dict[str, Any]]:
    return [
        {
            "attempt": told.number,
            "state": str(told.state or (parts.status["state"] if told is parts.told[-1] else State.UNKNOWN)),
            "summary": told.summary,
            "began": one.began,
            "ended": one.ended,
            "first_step": one.steps[0] if one.steps else None,
            "last_step": one.steps[-1] if one.steps else None,
            "resumed_from": told.resume_tag,
            "hosts": told.hosts,
            "ranks": told.ranks,
        }
        for told, one in zip(parts.told, passed.attempts, strict=True)
    ]


def _figures(parts: _Parts) -> dict[str, Any]:
    metrics, took = parts.metrics, parts.metrics.step_seconds()
    loss = [value for value in metrics.curves["loss"].to_json()["value"] if value is not None]
    found = {
        "last_step": metrics.progress.last_step(),
        "first_loss": loss[0] if loss else None,
        "last_loss": metrics.curves["loss"].last,
        "lowest_loss": min(loss, default=None),
        "tokens_per_second": metrics.mean("tokens_per_second"),
        "samples_per_second": metrics.mean("samples_per_second"),
        "tflops": metrics.mean("tflops"),
        "mfu": metrics.mean("mfu"),
        "step_seconds": took[0] if took else None,
        "step_seconds_p99": took[1] if took else None,
        "checkpoints": sum(event["event"] == "checkpoint" for event in parts.events),
        "gpus": metrics.gpus,
    }
    return {name: value for name, value in found.items() if value is not None}


def _series(metrics: Metrics) -> dict[str, Any]:
    told = (
        metrics.curves
        if len(metrics.curves["step_time"])
        else metrics.curves | {"step_time": metrics.step_times()}
    )
    curves = {name: curve.to_json() for name, curve in told.items() if len(curve)}
    bands = {name: band.to_json() for name, band in metrics.bands.items()}
    return {"curves": curves, "bands": {name: band for name, band in bands.items() if band["time"]}}


def _hosts(parts: _Parts) -> list[dict[str, Any]]:
    plan = {host.name: host for host in parts.plan.hosts}
    said = said_of_hosts(parts.events)
    rows = []
    for row in host_rows(parts.run):
        host = plan.get(row["host"])
        ranks = [] if host is None else [host.first_rank, host.first_rank + len(host.slots) - 1]
        totals = parts.metrics.hosts.get(row["host"])
        found: dict[str, Any] = {"host": row["host"], "state": row["state"], "ended": row["ranks"]}
        found |= {
            "span": ranks,
            "message": without_secrets(row["message"][:400]),
            "said": said.get(row["host"], [])[:4],
        }
        rows.append(found | (totals.to_json() if totals else {}))
    return rows
