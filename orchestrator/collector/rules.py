"""Ask the rules from time to time, and tell once what they find."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from orchestrator.collector import hang, stall
from orchestrator.collector.intake import Facts, Seen, oldest_known, running
from orchestrator.collector.straggler import Host, Stragglers, gpus_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.plan import MonitorPlan

_AGAIN = 10.0  # seconds until a silence that lasts is told again, with who is silent by then
_SETTLED = 2  # measurements in which the same ranks are silent before it is told: some stop a little later


class Rules:
    """What has been found and told so far.

    Args:
        monitor: the job file's words.
        interval: seconds between two measurements of a host.
    """

    def __init__(self, monitor: MonitorPlan, interval: float) -> None:
        self._monitor, self._interval = monitor, interval
        self._stragglers = Stragglers()
        self._silent_told: float | None = None
        self._silent: frozenset[int] = frozenset()
        self._silent_since = 0.0  # those ranks and no others
        self._stall_told: float | None = None
        self._next_hang = self._next_straggler = 0.0
        self._compared = 0.0  # when hosts were

    def look(self, facts: Facts, now: float) -> Iterator[dict[str, Any]]:
        """Yield what has been found since the last call, as events.

        Args:
            facts: what is known.
            now: epoch seconds.
        """
        if now >= self._next_hang:
            self._next_hang = now + max(1.0, len(facts.ranks) / 2000)
            yield from self._hangs(facts, now)
            yield from self._stalls(facts, now)
            facts.suspected = self._silent_told is not None
        if now >= self._next_straggler and self._all_measured(facts, now):
            before, self._compared = self._compared, now
            self._next_straggler = now + self._interval
            if facts.stepped:
                yield from self._stragglers.look(_hosts(facts, before))

    def _all_measured(self, facts: Facts, now: float) -> bool:
        """Tell whether hosts can be compared anew: on a busy machine, one measurement would count as three.

        A rank whose measurements have stopped coming is not waited for.
        """
        oldest = oldest_known(self._interval, now)
        return not any(
            seen.runs and oldest <= seen.sampled <= self._compared for seen in facts.ranks.values()
        )

    def _hangs(self, facts: Facts, now: float) -> Iterator[dict[str, Any]]:
        wanted, stepped = self._monitor.hang_after, bool(facts.stepped)
        after = hang.patience(wanted, facts.step_times, self._interval, stepped=stepped)
        if after is None:
            return
        found = hang.silence(running(facts, self._interval, now), facts.stepped, now, after)
        if found is None:
            self._silent = frozenset()
            if self._silent_told is not None:
                self._silent_told = None
                yield {"event": "hang_over"}
        elif self._is_due(found, now):
            self._silent_told = now
            yield {
                "event": "hang",
                "ranks": list(found.silent),
                "others": list(found.others),
                "since": round(found.since, 3),
                "silent": round(now - found.since, 1),
            }

    def _stalls(self, facts: Facts, now: float) -> Iterator[dict[str, Any]]:
        """Yield that no rank has given a sign for long, and that one has again."""
        stepped = bool(facts.stepped)
        after = hang.patience(self._monitor.hang_after, facts.step_times, self._interval, stepped=stepped)
        ranks = [rank for rank, seen in facts.ranks.items() if seen.runs]
        if after is None or not facts.heard or not ranks:
            return
        if not stepped and not isinstance(self._monitor.hang_after, str):
            after *= hang.START
        quiet = now - facts.heard
        if quiet < stall.patience(after, facts.longest, moving=now - facts.moved < after):
            if self._stall_told is not None and facts.heard > self._stall_told:
                self._stall_told = None
                yield {"event": "stall_over"}
        elif self._stall_told is None or now - self._stall_told >= _AGAIN:
            self._stall_told = now
            usual = median(facts.step_times) if facts.step_times else None
            told = {"ranks": ranks, "since": round(facts.heard, 3), "silent": round(quiet, 1)}
            yield {"event": "stall", **told, "usual": usual}

    def _is_due(self, found: hang.Silence, now: float) -> bool:
        """Tell whether a silence is to be told now: once it has settled, and again while it lasts."""
        if self._silent_told is not None:
            return now - self._silent_told >= _AGAIN
        if self._silent != (silent := frozenset(found.silent)):
            self._silent, self._silent_since = silent, now
        return now - self._silent_since >= _SETTLED * self._interval


def _hosts(facts: Facts, since: float) -> dict[str, Host]:
    """Return the last measurements of every host, as the straggler rule takes them.

    Args:
        facts: what is known.
        since: the CPU of a rank that was not measured after this (epoch seconds) is not known.
    """
    hosts: dict[str, Host] = {}
    ranks: dict[str, list[Seen]] = {}
    for seen in facts.ranks.values():
        if seen.runs:
            ranks.setdefault(seen.host, []).append(seen)
    for name, of in ranks.items():
        gpus = facts.samples[name].gpus if name in facts.samples else {}
        clock, held = gpus_of(gpus)
        cpu = _median([seen.cpu for seen in of if seen.sampled > since])
        step_time = _median([seen.step_time for seen in of if seen.step_time is not None])
        hosts[name] = Host(clock, held, step_time, None if gpus else cpu)
    return hosts


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
