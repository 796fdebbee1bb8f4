"""What one look at a run gives: the values that the screen draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping


class Mark(Enum):
    """What a host is doing: a word, a sign that tells it without colour, and a colour.

    In the order in which a user wants to see them: what is wrong first.
    """

    FAILED = ("failed", "X", "red")
    HANGING = ("hanging", "H", "red")
    FAULT = ("fault", "!", "red")
    SLOW = ("slow", "S", "yellow")
    UNKNOWN = ("unknown", "?", "yellow")
    RUNNING = ("running", "■", "green")
    READY = ("ready", "○", "cyan")
    WAITING = ("waiting", "·", "white")
    STOPPED = ("stopped", "-", "yellow")
    ENDED = ("ended", "✓", "blue")

    def __init__(self, word: str, sign: str, colour: str) -> None:
        self.word = word
        self.sign = sign
        self.colour = colour

    @property
    def is_problem(self) -> bool:
        """Tell whether somebody should look at such a host."""
        return self in _PROBLEMS

    @property
    def is_over(self) -> bool:
        """Tell whether nothing runs there any more."""
        return self in (Mark.FAILED, Mark.STOPPED, Mark.ENDED)


_PROBLEMS = frozenset({Mark.FAILED, Mark.HANGING, Mark.FAULT, Mark.SLOW})


@dataclass(frozen=True, slots=True)
class HostView:
    """One host as the grid shows it.

    Attributes:
        ranks: its ranks, consecutive.
        note: why its mark is what it is; "" where there is nothing to tell.
        busy: mean GPU utilisation, 0 to 1; without GPUs the share of its cores in use. None if unknown.
        temperature: of its hottest GPU, Celsius.
        memory: share of the host's memory in use, 0 to 1.
    """

    name: str
    file_name: str
    index: int
    ranks: range
    mark: Mark
    note: str = ""
    busy: float | None = None
    temperature: float | None = None
    memory: float | None = None


@dataclass(frozen=True, slots=True)
class RankView:
    """One rank as the table of the slowest shows it.

    Attributes:
        score: how many times slower than its peers it looks; 1 is like them.
        why: the figures behind the score, in words.
        step_time: seconds; `utilization` 0 to 1, `clock` MHz, `temperature` Celsius, `memory` bytes of GPU.
    """

    rank: int
    host: str
    score: float
    why: str
    step: float | None = None
    step_time: float | None = None
    utilization: float | None = None
    clock: float | None = None
    temperature: float | None = None
    memory: float | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class EventLine:
    """One line of the event stream.

    Attributes:
        time: epoch seconds of the first event that the line tells of.
        severity: 0 routine, 1 worth a look, 2 a failure.
        hosts: whom it is about, for the filter; empty means the whole run.
    """

    time: float
    text: str
    severity: int = 0
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """One value over steps: the points in order, and the last value as it was told (it may be NaN)."""

    name: str
    points: tuple[tuple[float, float], ...]
    last: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at a run. Times are epoch seconds.

    Attributes:
        reason: why the state is what it is.
        began: when the first attempt began; `ended` when the verdict was written. None: not yet.
        values: the latest of what the leading rank told, by the names of metrics.jsonl.
        curves: by name, those that have points.
        slowest: ranks, the slowest first.
        events: oldest first.
        checkpoint: the last complete tag.
        diagnosis: what diagnosis.json holds.
        problems: files that could not be read, and why.
    """

    run_id: str
    state: State = State.UNKNOWN
    reason: str = ""
    attempt: int = 0
    hosts: tuple[HostView, ...] = ()
    world_size: int = 0
    began: float | None = None
    ended: float | None = None
    step: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    slowest: tuple[RankView, ...] = ()
    events: tuple[EventLine, ...] = ()
    checkpoint: str = ""
    diagnosis: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = ()

    def counts(self) -> dict[Mark, int]:
        """Return how many hosts have each mark, what is wrong first."""
        found = dict.fromkeys(Mark, 0)
        for host in self.hosts:
            found[host.mark] += 1
        return {mark: count for mark, count in found.items() if count}
