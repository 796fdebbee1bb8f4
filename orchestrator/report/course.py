"""A run's course as its events tell it: attempts, saves, hangs. Values in, values out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.report.goodput import Course, Save, Tried
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.report.metrics import Progress

_LAST_NUMBER = re.compile(r"(\d+)\D*\Z")


@dataclass(frozen=True, slots=True)
class Told:
    """What an attempt's own files say of it.

    Attributes:
        state: of its verdict; None without one.
        ended: epoch seconds of its verdict; None without one.
        failed: epoch seconds of the first failure; None where there is none, or it is not known.
        resume_tag: the checkpoint that it went on from.
    """

    number: int
    state: State | None = None
    summary: str = ""
    ended: float | None = None
    failed: float | None = None
    resume_tag: str | None = None
    hosts: int = 0
    ranks: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a run beside its events.

    Attributes:
        created: epoch seconds of submit.
        now: epoch seconds.
        over: how it ended; None while it goes on.
        ended: epoch seconds of its end; None while it goes on.
        queued: a scheduler gives it its hosts.
        saves_here: it has a folder of checkpoints that are watched.
    """

    created: float
    now: float
    over: State | None = None
    ended: float | None = None
    queued: bool = False
    saves_here: bool = False


def course(
    known: Known, told: Sequence[Told], events: Sequence[dict[str, Any]], progress: Progress
) -> Course:
    """Return what is known of a run's time."""
    end = known.ended or known.now
    began = beginnings(told, events, known)
    told = [one for one in told if one.number in began]
    attempts = []
    for place, one in enumerate(told):
        last = place + 1 == len(told)
        until = one.ended or (end if last else began[told[place + 1].number])
        span = (began[one.number], max(until, began[one.number]))
        attempts.append(_tried(one, span, events, progress, known, running=last and known.over is None))
    saves = saves_in(events)
    kept = known.over in (None, State.SUCCEEDED) or not (known.saves_here or saves)
    return Course(known.created, end, tuple(attempts), saves, _hangs(events, attempts), kept, known.queued)


def _tried(
    one: Told,
    span: tuple[float, float],
    events: Sequence[dict[str, Any]],
    progress: Progress,
    known: Known,
    *,
    running: bool,
) -> Tried:
    times, steps = progress.of(one.number)
    retried = any(e["event"] == "retry" and e.get("attempt") == one.number for e in events)
    return Tried(
        one.number,
        *span,
        times,
        steps,
        resumed=None if one.resume_tag is None else _step_of_tag(one.resume_tag, events),
        failed=one.failed or _ending(events, span),
        queued=known.queued and not retried,
        running=running,
    )


def beginnings(told: Sequence[Told], events: Sequence[dict[str, Any]], known: Known) -> dict[int, float]:
    """Return when each attempt began: its event, or the first that was heard after the one before had ended.

    An attempt that nobody has heard of is absent: its files were written, and it waits.
    """
    found: dict[int, float] = {}
    for event in events:
        if event["event"] in ("attempt", "retry") and "attempt" in event:
            found.setdefault(int(event["attempt"]), event["time"])
    supervised = [event["time"] for event in events if event["event"] == "supervisor"]
    after = known.created
    for one in told:
        late = [time for time in supervised if time >= after]
        if late or one.ended:
            found.setdefault(one.number, late[0] if late else after)
        after = one.ended or found.get(one.number, after)
    return found


def _ending(events: Sequence[dict[str, Any]], span: tuple[float, float]) -> float | None:
    """Return when it was decided that an attempt ends before it is done."""
    for event in events:
        within = span[0] <= event["time"] <= span[1]
        if within and event["event"] == "ending" and event.get("state") != State.SUCCEEDED:
            return float(event["time"])
    return None


def _step_of_tag(tag: str, events: Sequence[dict[str, Any]]) -> float | None:
    for event in events:
        if event["event"] == "checkpoint" and event.get("tag") == tag and event.get("step") is not None:
            return float(event["step"])
    match = _LAST_NUMBER.search(tag)  # global_step400, checkpoint-400, iter_0000400
    return float(match[1]) if match else None


def saves_in(events: Sequence[dict[str, Any]]) -> tuple[Save, ...]:
    """Return the checkpoints that were completed, in order."""
    found = []
    for event in events:
        if event["event"] == "checkpoint":
            ended = float(event.get("ended") or event["time"])
            found.append(Save(float(event.get("began") or ended), ended, event.get("step")))
    return tuple(sorted(found))


def _hangs(events: Sequence[dict[str, Any]], attempts: Sequence[Tried]) -> tuple[tuple[float, float], ...]:
    found, since = [], None
    for event in events:
        if event["event"] in {"hang", "stall"}:
            since = float(event.get("since", event["time"])) if since is None else since
        elif event["event"] in {"hang_over", "stall_over"} and since is not None:
            found.append((since, float(event["time"])))
            since = None
    if since is not None:
        ends = [one.ended for one in attempts if one.began <= since <= one.ended]
        found += [(since, ends[-1])] if ends else []
    return tuple(found)
