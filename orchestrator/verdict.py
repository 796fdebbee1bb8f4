"""Judge a run from what its hosts and ranks left: which failed first, which were only stopped for it.

Pure. The evidence is exit codes, signals, times and messages; times of different hosts are compared only
as exactly as their clocks were (each comes with its uncertainty). Where the evidence cannot tell, the
verdict says "undetermined" and names the candidates.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.states import State

_SLACK = 0.005  # seconds between a death and its record on an idle host

_PEER_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|ncclRemoteError|NCCL error.*(remote|unhandled system)|"
    r"DistBackendError|Socket Timeout|recvValue failed|gloo/transport|Timed out waiting|heartbeat|"
    r"SignalException|Process got signal|RendezvousConnectionError|RendezvousClosedError|"
    r"DistNetworkError|Connection refused|failed to recv|wait timeout"
)
"""What a rank says when another one has gone (torch 2.13 with gloo and NCCL, torchelastic)."""

_PORT_IN_USE = re.compile(
    r"EADDRINUSE|[Aa]ddress already in use|port .* is already in use|on port \d+.*another"
)


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended; times are the supervisor's clock, epoch seconds.

    Attributes:
        uncertainty: how far `time` may be off, seconds.
        term_time: when the rank was sent SIGTERM, or None.
        raised_time: when it raised, where it recorded that (whole seconds).
    """

    rank: int
    local_rank: int
    host: str
    exit_code: int | None
    signal: int | None
    time: float | None
    uncertainty: float = 0.0
    term_time: float | None = None
    raised_time: float | None = None
    message: str = ""
    started: bool = True

    @property
    def ended(self) -> bool:
        """Tell whether it is known how it ended."""
        return self.exit_code is not None or self.signal is not None

    @property
    def failed(self) -> bool:
        """Tell whether it ended with anything but exit code 0."""
        return self.ended and self.exit_code != 0

    @property
    def stopped(self) -> bool:
        """Tell whether it ended as a process does that was told to: by that signal, or its shell's code."""
        told = self.term_time is not None
        return told and (self.signal in (signal.SIGTERM, signal.SIGKILL) or self.exit_code in (143, 137))

    @property
    def lost_peer(self) -> bool:
        """Tell whether it only reports that another rank has gone."""
        return bool(_PEER_LOST.search(self.message))


@dataclass(frozen=True, slots=True)
class HostEnd:
    """How one host ended.

    Attributes:
        failure: what went wrong with the host itself (not started, lost, agent killed); "" for nothing.
        launcher_code: the training launcher's exit code, None when it never ended or never started.
        launcher_told: it ended after its ranks had been told to: a consequence, never the cause.
        launcher_message: its last words.
        time: when the failure or the launcher's end was seen, the supervisor's clock.
    """

    name: str
    ranks: tuple[RankEnd, ...]
    failure: str = ""
    launcher_code: int | None = None
    launcher_told: bool = False
    launcher_message: str = ""
    time: float | None = None
    uncertainty: float = 0.0


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
        ranks = sum(len(host.ranks) for host in hosts)
        return Verdict(State.SUCCEEDED, f"all {ranks} ranks on {len(hosts)} hosts ended with 0", hosts=hosts)
    first, candidates = _first_failure(hosts)
    summary = _summary(first, candidates, hosts, reason)
    told = " ".join([reason, *(c.message for c in candidates), *(host.launcher_message for host in hosts)])
    return Verdict(State.FAILED, summary, first, candidates, hosts, bool(_PORT_IN_USE.search(told)))


def _all_well(hosts: tuple[HostEnd, ...]) -> bool:
    return all(
        not host.failure and host.launcher_code == 0 and all(rank.exit_code == 0 for rank in host.ranks)
        for host in hosts
    )


def _first_failure(hosts: tuple[HostEnd, ...]) -> tuple[Cause | None, tuple[Cause, ...]]:
    """Return the cause if the evidence names one, and all that may be it."""
    failed = [rank for host in hosts for rank in host.ranks if rank.failed and not rank.stopped]
    own = [rank for rank in failed if not rank.lost_peer and rank.term_time is None]
    if own:
        return _earliest(own)
    broken = [host for host in hosts if host.failure]
    if broken:
        return _earliest_host(broken)
    late = [rank for rank in failed if not rank.lost_peer and _raised_before_term(rank)]
    if len(late) == 1:
        return _cause(late[0]), (_cause(late[0]),)
    if failed:
        return None, tuple(_cause(rank) for rank in failed)
    return _earliest_host([h for h in hosts if h.launcher_code not in (0, None) and not h.launcher_told])


def _raised_before_term(rank: RankEnd) -> bool:
    if rank.raised_time is None or rank.term_time is None:
        return False
    return rank.raised_time + 1 <= rank.term_time - rank.uncertainty


def _earliest(ranks: list[RankEnd]) -> tuple[Cause | None, tuple[Cause, ...]]:
    ordered = sorted(ranks, key=lambda rank: rank.time or 0.0)
    first = ordered[0]
    rivals = [rank for rank in ordered[1:] if _may_precede(rank, first)]
    causes = tuple(_cause(rank) for rank in (first, *rivals))
    return (None if rivals else causes[0]), causes


def _may_precede(other: RankEnd, first: RankEnd) -> bool:
    """Tell whether `other` may have failed before `first`, as far as their clocks can tell."""
    between = (other.time or 0.0) - (first.time or 0.0)
    if other.host == first.host:
        return between <= _SLACK
    return between <= other.uncertainty + first.uncertainty + _SLACK


def _earliest_host(hosts: list[HostEnd]) -> tuple[Cause | None, tuple[Cause, ...]]:
    ordered = sorted(hosts, key=lambda host: host.time or 0.0)
    causes = tuple(_host_cause(host) for host in ordered)
    if not causes:
        return None, ()
    sure = len(causes) == 1 or _is_clearly_first(ordered)
    return (causes[0] if sure else None), (causes[:1] if sure else causes)


def _is_clearly_first(ordered: list[HostEnd]) -> bool:
    first, second = ordered[0], ordered[1]
    gap = (second.time or 0.0) - (first.time or 0.0)
    return gap > first.uncertainty + second.uncertainty + 1.0  # launchers notice each other's end in seconds


def _cause(rank: RankEnd) -> Cause:
    return Cause(rank.host, rank.rank, rank.local_rank, rank.exit_code, rank.signal, rank.message, rank.time)


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
    names = ", ".join(_name(cause) for cause in candidates[:8]) + (", …" if len(candidates) > 8 else "")
    messages = {cause.message for cause in candidates}
    said = f": {messages.pop()}" if len(messages) == 1 else ""
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


def roles(verdict: Verdict) -> dict[int, str]:
    """Return what each rank was in the failure: ok, cause, candidate, victim, failed, stopped, never started."""
    cause = verdict.first_failure.rank if verdict.first_failure else None
    candidates = {c.rank for c in verdict.candidates} if verdict.undetermined else set()
    told = "victim" if verdict.state is State.FAILED else "stopped"
    found = {}
    for rank in (rank for host in verdict.hosts for rank in host.ranks):
        found[rank.rank] = _role(rank, cause, candidates, told)
    return found


def _role(rank: RankEnd, cause: int | None, candidates: set[int | None], told: str) -> str:
    if not rank.started:
        return "never started"
    if rank.rank == cause:
        return "cause"
    if rank.rank in candidates:
        return "candidate"
    if rank.exit_code == 0:
        return "ok"
    if not rank.ended:
        return "unknown"
    return told if rank.term_time is not None else "failed"


def adjusted(rank: RankEnd, offset: float, uncertainty: float) -> RankEnd:
    """Return a rank's end with its host's times moved to the supervisor's clock."""

    def move(time: float | None) -> float | None:
        return None if time is None else time - offset

    return replace(
        rank,
        time=move(rank.time),
        term_time=move(rank.term_time),
        raised_time=move(rank.raised_time),
        uncertainty=uncertainty,
    )


def to_json(verdict: Verdict, run_id: str, started: float | None, ended: float) -> dict[str, Any]:
    """Return the verdict as `verdict.json` holds it."""
    role = roles(verdict)
    return {
        "run_id": run_id,
        "state": verdict.state,
        "summary": verdict.summary,
        "started": started,
        "ended": ended,
        "first_failure": _cause_json(verdict.first_failure),
        "undetermined": verdict.undetermined,
        "candidates": [_cause_json(cause) for cause in verdict.candidates],
        "hosts": [_host_json(host, role) for host in verdict.hosts],
    }


def _cause_json(cause: Cause | None) -> dict[str, Any] | None:
    if cause is None:
        return None
    from orchestrator.plan import file_name  # noqa: PLC0415 - keeps this module free of the plan otherwise

    stem = file_name(cause.host)
    log = f"{stem}.log" if cause.rank is None else f"{stem}.rank{cause.rank}.err"
    return {
        "host": cause.host,
        "rank": cause.rank,
        "local_rank": cause.local_rank,
        "exit_code": cause.exit_code,
        "signal": cause.signal,
        "message": cause.message,
        "time": cause.time,
        "log": log,
    }


def _host_json(host: HostEnd, role: dict[int, str]) -> dict[str, Any]:
    return {
        "name": host.name,
        "state": "failed" if host.failure else ("ok" if host.launcher_code == 0 else "ended"),
        "message": host.failure or host.launcher_message,
        "launcher_exit_code": host.launcher_code,
        "ranks": [
            {
                "rank": rank.rank,
                "local_rank": rank.local_rank,
                "exit_code": rank.exit_code,
                "signal": rank.signal,
                "role": role[rank.rank],
                "time": rank.time,
                "message": rank.message,
            }
            for rank in host.ranks
        ],
    }
