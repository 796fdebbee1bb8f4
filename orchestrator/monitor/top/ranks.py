"""Which ranks look slow, from what they tell and what was seen of them."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.top.snapshot import RankView
from orchestrator.monitor.top.words import short_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.plan import PlannedHost

_RECENT = 16  # step times that count
_ALIKE = 1.05  # below this ratio a rank is like its peers
_THROTTLED = 1.02  # what a throttled clock alone adds: before ranks with nothing to tell, after figures


@dataclass
class _Rank:
    rank: int
    host: str
    step: float | None = None
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    cpu: float | None = None
    gpu: Mapping[str, Any] = field(default_factory=dict)

    def step_time(self) -> float | None:
        """Return the median of its recent step times, seconds."""
        return statistics.median(self.times) if self.times else None

    def number(self, name: str) -> float | None:
        """Return what its GPU's last sample says under a name, if that is a number."""
        value = self.gpu.get(name)
        return float(value) if isinstance(value, int | float) else None


class Ranks:
    """The ranks of one attempt.

    Args:
        planned: the hosts of the attempt's plan, whose `devices` tell a GPU's rank until its host has.
    """

    def __init__(self, planned: Iterable[PlannedHost]) -> None:
        self._ranks: dict[int, _Rank] = {}
        self._at: dict[tuple[str, int], _Rank] = {}
        self._flagged: dict[str, dict[str, str]] = {}
        for host in planned:
            for rank, device in zip(host.ranks, host.devices, strict=True):
                one = self._ranks[rank] = _Rank(rank, host.name)
                self._at[host.name, device] = one

    def take(self, record: dict[str, Any]) -> None:
        """Learn from one record of kind `step`, `rank` or `gpu`."""
        if record["kind"] == "gpu":
            one = self._at.get((record.get("host", ""), record.get("gpu", -1)))
            if one is not None:
                one.gpu = record
            return
        one = self._ranks.get(record.get("rank", -1))
        if one is None:
            return
        if record["kind"] == "rank":
            one.cpu = record.get("cpu")
            self._place(one, record.get("gpu"))
            return
        if isinstance(record.get("step"), int | float):
            one.step = float(record["step"])
        if isinstance(record.get("step_time"), int | float):
            one.times.append(float(record["step_time"]))

    def _place(self, one: _Rank, gpu: Any) -> None:
        """Learn which GPU a rank has: what is a slot in the plan may be any GPU (CUDA_VISIBLE_DEVICES)."""
        if isinstance(gpu, int) and self._at.get((one.host, gpu)) is not one:
            self._at = {place: rank for place, rank in self._at.items() if rank is not one}
            self._at[one.host, gpu], one.gpu = one, {}

    def take_event(self, event: dict[str, Any]) -> None:
        """Learn which hosts the supervisor has named as slow."""
        host, what = str(event.get("host")), str(event.get("what"))
        if event.get("event") == "straggler":
            self._flagged.setdefault(host, {})[what] = str(event.get("words") or what)
        elif event.get("event") == "straggler_over":
            self._flagged.get(host, {}).pop(what, None)

    def slowest(self, count: int) -> tuple[RankView, ...]:
        """Return the ranks that look slowest; those without anything to compare come last."""
        times = {rank: value for rank, one in self._ranks.items() if (value := one.step_time())}
        clocks = [clock for one in self._ranks.values() if (clock := one.number("clock"))]
        peers = _Peers(
            statistics.median(times.values()) if len(times) > 1 else None,
            statistics.median(clocks) if len(clocks) > 1 else None,
            _furthest(self._ranks.values()),
        )
        scored = [(*self._score(one, times.get(one.rank), peers), one) for one in self._ranks.values()]
        scored.sort(key=lambda entry: (-entry[0], entry[2].rank))
        return tuple(_view(score, why, one, times.get(one.rank)) for score, why, one in scored[:count])

    def _score(self, one: _Rank, step_time: float | None, peers: _Peers) -> tuple[float, str]:
        """Return how many times slower than its peers a rank looks, and the figures that say so."""
        flagged = self._flagged.get(one.host, {})
        score, why = (2.0 if flagged else 1.0), list(flagged.values())
        clock = one.number("clock")
        for what, ratio, words in (
            ("step_time", _ratio(step_time, peers.step_time), _time_words(step_time, peers)),
            ("clock", _ratio(peers.clock, clock), f"clock {clock or 0:.0f} of {peers.clock or 0:.0f} MHz"),
        ):
            score = max(score, ratio)
            if ratio > _ALIKE and what not in flagged:
                why.append(words)
        if one.gpu.get("throttled"):
            score = max(score, _THROTTLED)
            why.append(f"throttled: {one.gpu['throttled']}")
        if peers.step is not None and one.step is not None and peers.step - one.step > 1:
            score = max(score, peers.step / max(one.step, 1.0))
            why.append(f"{peers.step - one.step:.0f} steps behind")
        return score, "; ".join(why)


@dataclass(frozen=True, slots=True)
class _Peers:
    """What is usual: medians of step time (s) and clock (MHz), and the furthest step; None if unknown."""

    step_time: float | None
    clock: float | None
    step: float | None


def _ratio(part: float | None, whole: float | None) -> float:
    return part / whole if part and whole else 1.0


def _time_words(step_time: float | None, peers: _Peers) -> str:
    return f"step {short_number(step_time or 0)} s, typical {short_number(peers.step_time or 0)} s"


def _furthest(ranks: Iterable[_Rank]) -> float | None:
    steps = [one.step for one in ranks if one.step is not None]
    return max(steps) if len(steps) > 1 else None


def _view(score: float, why: str, one: _Rank, step_time: float | None) -> RankView:
    return RankView(
        one.rank, one.host, score, why, one.step, step_time, one.number("utilization"), one.number("clock"),
        one.number("temperature"), one.number("memory"), one.cpu,
    )  # fmt: skip
