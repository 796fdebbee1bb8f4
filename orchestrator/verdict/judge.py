"""Judge a run from what its hosts and ranks left: which failed first, which were only stopped for it.

Pure. The evidence is exit codes, signals, times and messages; times of different hosts are compared only
as exactly as their clocks were (each comes with its uncertainty). Where the evidence cannot tell, the
verdict says "undetermined" and names the candidates.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.verdict.evidence import HostEnd, RankEnd

_SLACK = 0.005  # seconds between a death and its record on an idle host

_PORT_IN_USE = re.compile(
    r"EADDRINUSE|[Aa]ddress already in use|port .* is already in use|on port `?\d+`?, but another process"
)

_LATE = re.compile(r"Rank (\d+) failed to pass monitoredBarrier")
_DID_NOT_COME = "it did not come to a barrier in time"
_LEFT = "it ended while the others still needed it"


@dataclass(frozen=True, slots=True)
class Cause:
    """The first failure: a rank's, or a host's where `rank` is None."""

    host: str
    rank: int | None
    local_rank: int | None
    exit_code: int | None
    signal: int | None
    message: str
    time: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a run or an attempt."""

    state: State
    summary: str
    first_failure: Cause | None = None
    candidates: tuple[Cause, ...] = ()
    hosts: tuple[HostEnd, ...] = field(default=())
    port_in_use: bool = False

    @property
    def undetermined(self) -> bool:
        """Tell whether something failed first and the evidence cannot say what."""
        return self.state is State.FAILED and self.first_failure is None


def judge(ending: State, reason: str, hosts: tuple[HostEnd, ...]) -> Verdict:
    """Return the verdict on an attempt.

    Args:
        ending: why it ended: CANCELLED or TIMEOUT if someone decided so, else SUCCEEDED or FAILED.
        reason: in words, what made the supervisor end it.
        hosts: the evidence.
    """
    if ending in (State.CANCELLED, State.TIMEOUT):
        return Verdict(ending, reason, hosts=hosts)
    if ending is State.SUCCEEDED and _all_well(hosts):
        return Verdict(State.SUCCEEDED, _all_well_summary(hosts), hosts=hosts)
    unfit = [host for host in hosts if host.failure]
    if unfit and not any(map(_has_begun, hosts)):
        # Each is reason enough, and none came of another: the order does not matter.
        candidates = tuple(map(_host_cause, unfit))
        first: Cause | None = candidates[0]
        summary = _unfit_summary(unfit)
    else:
        first, candidates = _first_failure(hosts)
        summary = _summary(first, candidates, hosts, reason)
    told = " ".join([reason, *(c.message for c in candidates), *(host.launcher_message for host in hosts)])
    return Verdict(State.FAILED, summary, first, candidates, hosts, bool(_PORT_IN_USE.search(told)))


def _has_begun(host: HostEnd) -> bool:
    return host.launcher_code is not None or any(rank.started for rank in host.ranks)


def _unfit_summary(unfit: list[HostEnd]) -> str:
    """Say what keeps the run from starting, hosts with the same trouble together."""
    by_trouble: dict[str, list[str]] = {}
    for host in unfit:
        by_trouble.setdefault(host.failure, []).append(host.name)
    told = [f"{_some(names)}: {failure}" for failure, names in by_trouble.items()]
    return f"no rank was started; {'; '.join(told)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _all_well_summary(hosts: tuple[HostEnd, ...]) -> str:
    ranks = sum(len(host.ranks) for host in hosts)
    all_ranks = "the one rank" if ranks == 1 else f"all {ranks} ranks"
    return f"{all_ranks} on {len(hosts)} {'host' if len(hosts) == 1 else 'hosts'} ended with 0"


def _all_well(hosts: tuple[HostEnd, ...]) -> bool:
    return all(
        not host.failure and host.launcher_code == 0 and all(rank.exit_code == 0 for rank in host.ranks)
        for host in hosts
    )


def _first_failure(hosts: tuple[HostEnd, ...]) -> tuple[Cause | None, tuple[Cause, ...]]:
    """Return the cause if the evidence names one, and all that may be it."""
    failed = {host.name: _failed_on(host) for host in hosts}
    ranks = sorted((rank for on_host in failed.values() for rank in on_host), key=lambda rank: rank.rank)
    seen = min((rank.span[1] + rank.uncertainty for rank in ranks), default=float("inf")) + _SLACK
    faulty = [host for host in hosts if _may_have_failed_by(host, seen) or _launcher_failed(host, failed)]
    own = [rank for rank in ranks if rank.failed_by_itself]
    if own:
        told = {rank.host for rank in own}  # such a host was still there when its rank failed
        return _earliest([*map(_of_rank, own), *(_of_host(host) for host in faulty if host.name not in told)])
    if faulty:
        return _earliest_host(faulty)
    if len(ranks) == 1 and ranks[0].term_time is None and not ranks[0].surely_lost_peer:
        return _cause(ranks[0]), (_cause(ranks[0]),)
    return _of_the_missing(hosts, ranks) or (None, tuple(map(_cause, ranks)))


def _of_the_missing(
    hosts: tuple[HostEnd, ...], lost: list[RankEnd]
) -> tuple[Cause | None, tuple[Cause, ...]] | None:
    """Return who was missed by ranks that all only tell that somebody was; None if that cannot be told.

    One that did not come to a barrier is named by the others; one that had ended with 0 before any of them
    failed (its data ran out earlier) could not answer them any more.
    """
    every = sorted((rank for host in hosts for rank in host.ranks), key=lambda rank: rank.rank)
    named = {int(match[1]) for rank in lost for match in _LATE.finditer(rank.message)}
    late = [replace(rank, message=_DID_NOT_COME) for rank in every if rank.rank in named]
    first = min(((rank.time or 0.0) - rank.uncertainty for rank in lost), default=0.0)
    left = [replace(rank, message=_LEFT) for rank in every if rank.exit_code == 0 and _ended_by(rank, first)]
    causes = tuple(map(_cause, late or left))
    return (causes[0] if len(causes) == 1 else None, causes) if causes else None


def _ended_by(rank: RankEnd, time: float) -> bool:
    return rank.time is not None and rank.time + rank.uncertainty < time


def _may_have_failed_by(host: HostEnd, time: float) -> bool:
    return bool(host.failure) and (host.since is None or host.since <= time)


def _launcher_failed(host: HostEnd, failed: dict[str, list[RankEnd]]) -> bool:
    """Tell whether a training launcher failed by itself: none of its ranks had, nobody had told it to end."""
    return host.launcher_code not in (0, None) and not host.launcher_told and not failed[host.name]


def _failed_on(host: HostEnd) -> list[RankEnd]:
    """Return the ranks of a host that failed and were not stopped, by us or by their training launcher.

    A launcher may stop the others before we do, and DeepSpeed's sends SIGTERM past our shims: a rank that
    died of SIGTERM after another one of its host had failed is its launcher's victim.
    """
    failed = [rank for rank in host.ranks if rank.failed and not rank.stopped]
    before = min((rank.time or 0.0 for rank in failed if not _died_of_sigterm(rank)), default=float("inf"))
    return [rank for rank in failed if not _died_of_sigterm(rank) or (rank.time or 0.0) <= before]


def _died_of_sigterm(rank: RankEnd) -> bool:
    if rank.raised_before_term:
        return False  # it was ending already
    return rank.signal == signal.SIGTERM or rank.exit_code == 128 + signal.SIGTERM


class _Suspect(NamedTuple):
    """What may have failed first, and between which two times of which clock it failed."""

    cause: Cause
    clock: str
    low: float
    high: float
    uncertainty: float


def _of_rank(rank: RankEnd) -> _Suspect:
    return _Suspect(_cause(rank), rank.host, *rank.span, rank.uncertainty)


def _of_host(host: HostEnd) -> _Suspect:
    seen = host.time or 0.0
    if not host.failure:
        return _Suspect(_host_cause(host), host.name, seen, seen, host.uncertainty)
    since = float("-inf") if host.since is None else host.since
    return _Suspect(_host_cause(host), "", since, seen, 0.0)


def _earliest(suspects: list[_Suspect]) -> tuple[Cause | None, tuple[Cause, ...]]:
    """Leave out who failed later than another for certain; times of one clock compare exactly."""
    by_clock: dict[str, float] = {}
    for one in suspects:
        by_clock[one.clock] = min(one.high, by_clock.get(one.clock, one.high))
    by_all = min(one.high + one.uncertainty for one in suspects)
    left = [
        one
        for one in suspects
        if one.low <= by_clock[one.clock] + _SLACK and one.low - one.uncertainty <= by_all + _SLACK
    ]
    causes = tuple(one.cause for one in sorted(left, key=lambda one: (one.low, _name(one.cause))))
    return (causes[0] if len(causes) == 1 else None), causes


def _earliest_host(hosts: list[HostEnd]) -> tuple[Cause | None, tuple[Cause, ...]]:
    ordered = sorted(hosts, key=lambda host: (host.time or 0.0, host.name))
    causes = tuple(_host_cause(host) for host in ordered)
    if not causes:
        return None, ()
    sure = len(causes) == 1 or _is_clearly_first(ordered)
    return (causes[0] if sure else None), (causes[:1] if sure else causes)


def _is_clearly_first(ordered: list[HostEnd]) -> bool:
    first = ordered[0]
    gaps = ((other.time or 0.0) - (first.time or 0.0) - other.uncertainty for other in ordered[1:])
    return min(gaps) > first.uncertainty + 1.0  # launchers notice each other's end in seconds


def _cause(rank: RankEnd) -> Cause:
    time = None if rank.time is None else rank.span[0]
    return Cause(rank.host, rank.rank, rank.local_rank, rank.exit_code, rank.signal, rank.message, time)


def _host_cause(host: HostEnd) -> Cause:
    code = host.launcher_code
    killed = -code if code is not None and code < 0 else None
    how = f"was killed by {signal_name(killed)}" if killed else f"ended with {code}"
    said = f": {host.launcher_message}" if host.launcher_message else ""
    message = host.failure or f"the training launcher {how}{said}"
    return Cause(host.name, None, None, None if killed else code, killed, message, host.time)


def _summary(
    first: Cause | None, candidates: tuple[Cause, ...], hosts: tuple[HostEnd, ...], reason: str
) -> str:
    if first is not None:
        return f"{describe(first)}{_victims(hosts)}"
    if not candidates:
        return reason
    names = _some([_name(cause) for cause in candidates])
    messages = {cause.message for cause in candidates}
    said = f": {messages.pop()}" if len(messages) == 1 and messages != {""} else ""
    return f"undetermined: the evidence cannot tell which failed first of {names}{said}"


def _victims(hosts: tuple[HostEnd, ...]) -> str:
    count = sum(rank.stopped for host in hosts for rank in host.ranks)
    return f"; {count} other rank{'s were' if count > 1 else ' was'} stopped because of it" if count else ""


def _name(cause: Cause) -> str:
    return cause.host if cause.rank is None else f"rank {cause.rank} on {cause.host}"


def describe(cause: Cause) -> str:
    """Return a first failure as a sentence."""
    if cause.rank is None:
        return f"host {cause.host} failed first: {cause.message}"
    how = f"killed by {signal_name(cause.signal)}" if cause.signal else f"exit code {cause.exit_code}"
    said = f": {cause.message}" if cause.message else ""
    return f"rank {cause.rank} (local rank {cause.local_rank}) on {cause.host} failed first, {how}{said}"


def signal_name(number: int) -> str:
    """Return a signal's name, SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
