"""What the supervisor knows of one host."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.verdict.evidence import HostEnd, RankEnd, adjusted

if TYPE_CHECKING:
    from orchestrator.plan import PlannedHost

_UNSYNCHRONISED = 60.0  # seconds a clock may be off before the first answer to a ping
_DRIFT = 1e-4  # of two clocks that nobody sets: 100 parts in a million are more than any quartz has
_HEARD_LATE = 1.0  # seconds a host's last word may have waited to be heard


@dataclass
class HostState:
    """One host, from the start of its agent to its release.

    Attributes:
        ready: the agent's last report of itself.
        ranks: records of its ranks by rank, as the agent sent them (times of the host's own clock).
        failure: what went wrong with the host itself; noticed at `failure_time`, not before `failure_since`.
        lost: nothing is heard of it any more, or ever was.
        offset: host clock minus ours, seconds; exact to `uncertainty`, at the time `measured`.
        kept: how much of its log files has been written down since its agent was last told.
        contact: time.monotonic() of the agent's last word.
    """

    plan: PlannedHost
    ready: dict[str, Any] | None = None
    route: dict[str, Any] | None = None
    started: bool = False
    ranks: dict[int, dict[str, Any]] = field(default_factory=dict)
    launcher_code: int | None = None
    launcher_time: float | None = None
    launcher_told: bool = False
    ended: bool = False
    drained: bool = False
    pushed: bool = False
    command_ended: bool = False
    failure: str = ""
    failure_time: float | None = None
    failure_since: float | None = None
    lost: bool = False
    offset: float = 0.0
    uncertainty: float = _UNSYNCHRONISED
    measured: float = 0.0
    kept: dict[str, int] = field(default_factory=dict)
    contact: float = field(default_factory=time.monotonic)

    def take_pong(self, sent: float, host_time: float, now: float) -> bool:
        """Learn from an answered ping: half its way is the most the clocks' offset can be off.

        What was learnt grows old, as clocks that nobody sets drift apart. Returns whether this tells more.
        """
        half = max(0.0, now - sent) / 2
        if half >= self.uncertainty + abs(now - self.measured) * _DRIFT:
            return False
        self.uncertainty = half
        self.offset = host_time - (sent + now) / 2
        self.measured = now
        return True

    @property
    def clock(self) -> dict[str, float] | None:
        """Return `offset` and `uncertainty` for `clocks.json`; None before the first answer to a ping."""
        if not self.measured:
            return None
        return {"offset": round(self.offset, 6), "uncertainty": round(self.uncertainty, 6)}

    def fail(self, why: str, *, lost: bool = False) -> None:
        """Note the first thing that went wrong with the host itself."""
        if not self.failure:
            self.failure = why
            self.lost = lost
            self.failure_time = time.time()
            self.failure_since = self.failure_time - (time.monotonic() - self.contact) - _HEARD_LATE

    @property
    def finished_well(self) -> bool:
        """Tell whether the training launcher has ended with 0 and so has every rank."""
        records = self.ranks.values()
        return (
            self.launcher_code == 0
            and len(self.ranks) == len(self.plan.ranks)
            and all(record["event"] == "exit" and record["exit_code"] == 0 for record in records)
        )

    def evidence(self, launcher_message: str) -> HostEnd:
        """Return what the verdict is judged from."""
        seen = self.failure_time if self.failure else self.launcher_time
        moved = seen if self.failure or seen is None else seen - self.offset
        return HostEnd(
            name=self.plan.name,
            ranks=tuple(self._rank_end(rank) for rank in self.plan.ranks),
            failure=self.failure,
            launcher_code=self.launcher_code,
            launcher_told=self.launcher_told,
            launcher_message=launcher_message,
            time=moved,
            uncertainty=self.uncertainty,
            since=self.failure_since,
            lost=self.lost,
        )

    def _rank_end(self, rank: int) -> RankEnd:
        record = self.ranks.get(rank, {})
        ended = record.get("event") == "exit"
        end = RankEnd(
            rank=rank,
            local_rank=rank - self.plan.first_rank,
            host=self.plan.name,
            exit_code=record.get("exit_code") if ended else None,
            signal=record.get("signal") if ended else None,
            time=record.get("time") if ended else None,
            term_time=record.get("term_time"),
            raised_time=record.get("raised_time"),
            said_time=record.get("said_time"),
            message=record.get("message", ""),
            started=bool(record),
        )
        return adjusted(end, self.offset, self.uncertainty)
