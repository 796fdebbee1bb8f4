"""What hosts and ranks left when a run ended, on the supervisor's clock: a verdict is judged from it."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace

_RAISED_SECONDS = 1.0  # torchelastic's error file tells the time of an exception in whole seconds
_STOPS = (signal.SIGTERM, signal.SIGKILL, signal.SIGABRT)  # the last leaves the stacks of a rank that hangs
_SAID_SECONDS = 0.01  # the kernel's clock for files is that coarse

_PEER_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|ncclRemoteError|NCCL error.*(remote|unhandled system)|"
    r"DistBackendError|Socket Timeout|recvValue failed|gloo/transport|Timed out waiting|heartbeat|"
    r"SignalException|Process got signal|RendezvousConnectionError|RendezvousClosedError|"
    r"DistNetworkError|DistStoreError|Connection refused|failed to recv|wait timeout|"
    r"collective operation timeout|Timed out initializing process group|"
    r"(failed to pass|reached) monitoredBarrier|Timeout waiting for key"
)
"""What a rank says when another one has gone or did not come (torch 2.13: gloo, NCCL, torchelastic)."""
_PEER_GONE = re.compile(
    r"by peer|Broken pipe|[Rr]emote|[Tt]imed? ?out|recv|heartbeat|SignalException|got signal|Rendezvous|"
    r"DistStoreError|monitoredBarrier|waiting for key"
)
_OWN_TROUBLE = re.compile(
    r"Unable to find address|unhandled cuda error|Cuda failure|CUDA error|ncclInvalidUsage|invalid usage|"
    r"Duplicate GPU|no socket interface"
)
"""What it says in the same exceptions of a trouble of its own."""
_SERVICE = re.compile(r"https?://|HTTPS?Connection|urllib3|requests\.exceptions|aiohttp|wandb|mlflow")
"""What it says when that was no rank, but a service that its script uses."""


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended; times are the supervisor's clock, epoch seconds.

    Attributes:
        uncertainty: how far `time` may be off, seconds.
        term_time: when the rank was sent SIGTERM, or None.
        raised_time: when it raised, where it recorded that (whole seconds).
        said_time: when its stderr, which ends in an exception, was last written to: just after it raised.
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
    said_time: float | None = None

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
        told = self.term_time is not None and not self.raised_before_term
        return told and (self.signal in _STOPS or self.exit_code in (143, 137))

    @property
    def lost_peer(self) -> bool:
        """Tell whether it only reports that another rank has gone; no lost peer sends SIGKILL (OOM does)."""
        own = _SERVICE.search(self.message) or _OWN_TROUBLE.search(self.message)
        return self.signal != signal.SIGKILL and not own and bool(_PEER_LOST.search(self.message))

    @property
    def surely_lost_peer(self) -> bool:
        """Tell whether another rank must have gone, or not have come, for it to say what it said."""
        return self.lost_peer and bool(_PEER_GONE.search(self.message))

    @property
    def raised_before_term(self) -> bool:
        """Tell whether it had raised by the time it was told to end (both are its own host's clock)."""
        told, raised, said = self.term_time, self.raised_time, self.said_time
        if told is None:
            return False
        recorded = raised is not None and raised + _RAISED_SECONDS <= told
        return recorded or (said is not None and self._by_itself and said + _SAID_SECONDS < told)

    @property
    def _by_itself(self) -> bool:
        """Tell whether it ended as an exception ends a rank, or was killed while that took its time."""
        return self.exit_code == 1 or self.signal in _STOPS

    @property
    def failed_by_itself(self) -> bool:
        """Tell whether it failed, nobody having told it to end, for a reason other than a lost peer."""
        untold = self.term_time is None or self.raised_before_term
        return self.failed and not self.stopped and not self.lost_peer and untold

    @property
    def span(self) -> tuple[float, float]:
        """Return between which two times it failed: a script may take long from its exception to its exit."""
        time = self.time or 0.0
        if self.said_time is not None and self.said_time <= time:
            return self.said_time, min(time, self.said_time + _SAID_SECONDS)
        if self.raised_time is None or self.raised_time + _RAISED_SECONDS >= time:
            return time, time
        return self.raised_time, self.raised_time + _RAISED_SECONDS


@dataclass(frozen=True, slots=True)
class HostEnd:
    """How one host ended.

    Attributes:
        failure: what went wrong with the host itself (not started, lost, agent killed); "" for nothing.
        lost: that is, nothing was heard of it any more, or ever.
        launcher_code: the training launcher's exit code, None when it never ended or never started.
        launcher_told: it ended after its ranks had been told to: a consequence, never the cause.
        launcher_message: its last words.
        time: when the failure or the launcher's end was seen, the supervisor's clock.
        since: its failure was not before this, the supervisor's clock; None: not known.
    """

    name: str
    ranks: tuple[RankEnd, ...]
    failure: str = ""
    launcher_code: int | None = None
    launcher_told: bool = False
    launcher_message: str = ""
    time: float | None = None
    uncertainty: float = 0.0
    since: float | None = None
    lost: bool = False


def adjusted(rank: RankEnd, offset: float, uncertainty: float) -> RankEnd:
    """Return a rank's end with its host's times moved to the supervisor's clock."""

    def move(time: float | None) -> float | None:
        return None if time is None else time - offset

    return replace(
        rank,
        time=move(rank.time),
        term_time=move(rank.term_time),
        raised_time=move(rank.raised_time),
        said_time=move(rank.said_time),
        uncertainty=uncertainty,
    )
