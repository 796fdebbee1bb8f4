"""The state of a run: fed with events, records and documents one by one, asked for snapshots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.top.event_log import EventLog
from orchestrator.monitor.top.hosts import Hosts
from orchestrator.monitor.top.ranks import Ranks
from orchestrator.monitor.top.series import Series
from orchestrator.monitor.top.snapshot import Curve, RankView, Snapshot
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.plan import PlannedHost

_NOT_VALUES = frozenset({"time", "attempt", "kind", "host", "rank", "step"})
_SLOWEST = 64  # ranks in the table
_MOST_VALUES = 40  # names that lines of a run may introduce


class RunState:
    """Everything that the screen shows of one run. Knows no file and no clock.

    Args:
        run_id: of the run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._attempt = 0
        self._hosts, self._ranks = Hosts(()), Ranks(())
        self._world_size = 0
        self._events = EventLog()
        self._series: dict[str, Series] = {}
        self._leader: dict[str, int] = {}
        self._values: dict[str, float] = {}
        self._step: int | None = None
        self._began: float | None = None
        self._checkpoint = ""
        self._status: dict[str, Any] = {}
        self._ended: float | None = None
        self._diagnosis: Mapping[str, Any] | None = None
        self._problems: tuple[str, ...] = ()
        self._slowest: tuple[RankView, ...] = ()
        self._ranks_changed = False

    def begin(self, attempt: int, hosts: Sequence[PlannedHost]) -> None:
        """Start anew with an attempt's hosts; 0 is before the first one."""
        self._attempt = attempt
        self._hosts, self._ranks = Hosts(hosts), Ranks(hosts)
        self._world_size = sum(len(host.ranks) for host in hosts)
        self._ranks_changed = True

    def take_event(self, event: dict[str, Any]) -> None:
        """Learn from one event."""
        name = event.get("event")
        if name == "attempt" and self._began is None:
            self._began = float(event.get("time") or 0.0)
        elif name == "checkpoint":
            self._checkpoint = str(event.get("tag", ""))
        elif name in ("straggler", "straggler_over"):
            self._ranks.take_event(event)
            self._ranks_changed = True
        self._events.add(event)
        self._hosts.take_event(event)

    def take_record(self, record: dict[str, Any]) -> None:
        """Learn from one record of metrics.jsonl; one that is none of them is left out."""
        kind = record.get("kind")
        if kind == "step":
            self._take_step(record)
        elif kind in ("gpu", "host"):
            self._hosts.take_sample(record)
        if kind in ("step", "rank", "gpu") and record.get("attempt", self._attempt) == self._attempt:
            self._ranks.take(record)
            self._ranks_changed = True

    def _take_step(self, record: dict[str, Any]) -> None:
        """Take the values that the lowest rank tells; other ranks tell their own step times only."""
        rank = record.get("rank")
        rank = rank if isinstance(rank, int) else 0
        step = number(record.get("step"))
        for name, told in record.items():
            value = None if name in _NOT_VALUES else number(told)
            if value is None or not self._leads(name, rank):
                continue
            self._values[name] = value
            if step is not None:
                self._series.setdefault(name, Series()).add(step, value)
        if step is not None and math.isfinite(step) and self._leads("step", rank):
            self._step = int(step)

    def _leads(self, name: str, rank: int) -> bool:
        """Tell whether a rank is the one whose values count: the lowest that tells a name."""
        leader = self._leader.get(name)
        if leader is None and len(self._leader) >= _MOST_VALUES:
            return False
        if leader is None or rank < leader:
            self._leader[name] = leader = rank
        return rank == leader

    def take_status(self, status: Mapping[str, Any]) -> None:
        """Take state and reason."""
        self._status = dict(status)
        self._hosts.take_silence(silent=status.get("state") is State.LOST)

    def take_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Take the verdict of the whole run."""
        self._ended = number(verdict.get("ended"))
        self._hosts.take_verdict(verdict.get("hosts") or ())
        self._blame()

    def take_diagnosis(self, diagnosis: Mapping[str, Any] | None) -> None:
        """Take what diagnosis.json holds."""
        self._diagnosis = diagnosis
        self._blame()

    def _blame(self) -> None:
        """Show the host that the diagnosis names, once the verdict is there."""
        found = self._diagnosis or {}
        if (
            self._ended is not None
            and found.get("category")
            and found.get("host")
            and not found.get("undetermined")
        ):
            rank = "" if found.get("rank") is None else f"rank {found['rank']}: "
            self._hosts.take_cause(str(found["host"]), f"{rank}{found.get('title') or found['category']}")

    def take_problems(self, problems: Sequence[str]) -> None:
        """Take what could not be read this time."""
        self._problems = tuple(problems)

    def compare_ranks(self) -> None:
        """Find the slowest ranks anew: the one thing that takes milliseconds with thousands of ranks."""
        if self._ranks_changed:
            self._slowest = self._ranks.slowest(_SLOWEST)
            self._ranks_changed = False

    def snapshot(self) -> Snapshot:
        """Return the run as it is known now."""
        curves = {name: Curve(name, one.points(), one.last) for name, one in self._series.items()}
        return Snapshot(
            self._run_id,
            State(self._status.get("state", State.UNKNOWN)),
            str(self._status.get("reason") or ""),
            self._attempt,
            self._hosts.views(),
            self._world_size,
            self._began,
            self._ended,
            self._step,
            dict(self._values),
            curves,
            self._slowest,
            self._events.lines(),
            self._checkpoint,
            self._diagnosis,
            self._problems,
        )


def number(value: object) -> float | None:
    """Return a number of a record, in which NaN and infinities are texts; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None
