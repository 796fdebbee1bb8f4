"""Which events of a run are occasions to tell somebody, and what is said of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.xids import of_program
from orchestrator.notify.message import duration
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMITS = {"hang": (600.0, 20), "straggler": (6 * 3600.0, 10), "fault": (3600.0, 20)}
"""Seconds between two messages on one host (on hangs: on any), and the most messages of a run: what comes and
goes by turns is one story."""
_FAULTS = ("gpu_fault", "oom_kill")
_OCCASION = {"hang": "hang", "stall": "hang", "straggler": "straggler"} | dict.fromkeys(_FAULTS, "fault")
_NAMED = 4  # ranks whose places are told


class Occasions:
    """Reads a run's events in order, and tells which of them are occasions."""

    def __init__(self) -> None:
        self._starts = 0
        self._why = ""
        self._told: Counter[str] = Counter()
        self._last: dict[tuple[str, str], float] = {}

    def of(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the occasion and what is to be said of it; None for an event that is none."""
        name = str(event.get("event"))
        if name in ("retry", "requeue", "interruption"):
            self._why = str(event.get("reason", ""))
        elif name == "start":
            self._starts += 1
            again = f"attempt {self._starts}: {self._why}" if self._why else f"attempt {self._starts}"
            return ("start", "") if self._starts == 1 else ("restart", again)
        elif name == "gpu_fault" and of_program(event):
            return None  # the script's mistake, of which its end tells
        elif name in _OCCASION and self._may_tell(_OCCASION[name], event):
            return _OCCASION[name], _words(name, event)
        return None

    def _may_tell(self, occasion: str, event: Mapping[str, Any]) -> bool:
        pause, most = _LIMITS[occasion]
        subject, now = (occasion, str(event.get("host", ""))), float(event.get("time", 0.0))
        if self._told[occasion] >= most or now - self._last.get(subject, float("-inf")) < pause:
            return False
        self._told[occasion] += 1
        self._last[subject] = now
        return True


def _words(name: str, event: Mapping[str, Any]) -> str:
    if event.get("words") and name in {"hang", "stall"}:
        return str(event["words"])
    if name == "hang":
        return hang_words(event)
    from orchestrator.monitor.top.event_log import in_words  # noqa: PLC0415 - few runs come here

    return in_words(name, dict(event))[1]


def hang_words(event: Mapping[str, Any]) -> str:
    """Return `rank 3 on node-1 hangs in train.py:57 readline for 130 s; 7 ranks wait for it`."""
    ranks = list(event.get("ranks") or ())
    where = event.get("where") or {}
    places = [f"rank {rank}{_at(where.get(str(rank)))}" for rank in ranks[:_NAMED]]
    more = [f"{len(ranks) - _NAMED} more"] if len(ranks) > _NAMED else []
    hosts = list(event.get("hosts") or ())
    on = f" on {', '.join(hosts[:_NAMED])}{', …' if len(hosts) > _NAMED else ''}" if hosts else ""
    silent = event.get("silent")
    since = f" for {duration(float(silent))}" if silent is not None else ""
    waiting = len(event.get("waiting") or ())
    wait = f"; {waiting} rank{'s wait' if waiting > 1 else ' waits'}" if waiting else ""
    return f"{', '.join([*places, *more]) or 'the run'}{on} without a sign of life{since}{wait}"


def _at(place: object) -> str:
    return f" (in {place})" if place else ""


def of_end(state: State) -> str:
    """Return the occasion of an end: failure, or end."""
    return "end" if state in (State.SUCCEEDED, State.CANCELLED) else "failure"


def is_wanted(on: tuple[str, ...], occasion: str, *, of_point: bool = False) -> bool:
    """Tell whether somebody who wants to be told of `on` is told of an occasion; a failure is an end too.

    Args:
        on: the occasions that the job file names.
        occasion: the one that has come.
        of_point: of a point of a sweep, whose start and end are told for all points together.
    """
    if of_point:
        return occasion in on and occasion not in ("start", "end")
    return occasion in on or (occasion == "failure" and "end" in on)
