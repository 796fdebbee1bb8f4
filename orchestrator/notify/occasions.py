"""Which events of a run are occasions to tell somebody, and what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.notify.message import duration
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping

_PAUSE = 600.0  # seconds between two messages on hangs: ranks that hang and go on by turns are one story
_MOST_HANGS = 20  # messages on hangs of one run
_NAMED = 4  # ranks whose places are told


class Occasions:
    """Reads a run's events in order, and tells which of them are occasions."""

    def __init__(self) -> None:
        self._starts = 0
        self._why = ""
        self._hangs = 0
        self._last_hang = float("-inf")

    def of(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return the occasion and what is to be said of it; None for an event that is none."""
        name = event.get("event")
        if name in ("retry", "requeue", "interruption"):
            self._why = str(event.get("reason", ""))
        elif name == "start":
            self._starts += 1
            again = f"attempt {self._starts}: {self._why}" if self._why else f"attempt {self._starts}"
            return ("start", "") if self._starts == 1 else ("restart", again)
        elif name == "hang":
            return self._hang(event)
        return None

    def _hang(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        now = float(event.get("time", 0.0))
        if self._hangs >= _MOST_HANGS or now - self._last_hang < _PAUSE:
            return None
        self._hangs, self._last_hang = self._hangs + 1, now
        return "hang", hang_words(event)


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


def is_wanted(on: tuple[str, ...], occasion: str) -> bool:
    """Tell whether somebody who wants to be told of `on` is told of an occasion; a failure is an end too."""
    return occasion in on or (occasion == "failure" and "end" in on)
