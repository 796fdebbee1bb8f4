"""Ends of ranks and hosts, for tests of what is made of them."""

from __future__ import annotations

import signal

from orchestrator.states import State
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import Verdict, judge

# What torch 2.13 says in a rank whose peer has gone: gloo, NCCL, the store, torchelastic's own agent.
LOST = [
    "RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:40011",
    "RuntimeError: [gloo/transport/tcp/pair.cc:547] Read error [::1]:3: Connection reset by peer",
    "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3356, remote process exited",
    "torch.distributed.DistBackendError: [1] is setting up NCCL communicator and retrieving ncclUniqueId",
    "terminate called after throwing an instance of 'c10::DistBackendError'",
    "torch.distributed.elastic.multiprocessing.api.SignalException: Process 41 got signal: 15",
    "torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely closed.",
    "BrokenPipeError: [Errno 32] Broken pipe",
]
KILL, TERM, SEGV = int(signal.SIGKILL), int(signal.SIGTERM), int(signal.SIGSEGV)


def rank(number: int, host: str = "a", at: float | None = 10.0, **more) -> RankEnd:
    """Return a rank that is still running (`at` None) or that ended with 1 unless `more` says otherwise."""
    code = None if at is None or "signal" in more else 1
    fields = {"exit_code": code, "signal": None, "uncertainty": 0.001, **more}
    return RankEnd(rank=number, local_rank=0, host=host, time=at, **fields)


def told(number: int, host: str = "a", at: float = 11.0, **more) -> RankEnd:
    """Return a rank that was sent SIGTERM half a second before it ended, by that signal if nothing else."""
    how = {} if "exit_code" in more else {"signal": TERM}
    return rank(number, host, at, **{**how, "term_time": at - 0.5, **more})


def lost(number: int, host: str = "a", at: float = 10.1, message: str = LOST[0], **more) -> RankEnd:
    return rank(number, host, at, message=message, **more)


def host(*ranks: RankEnd, name: str = "a", code: int | None = 1, **more) -> HostEnd:
    return HostEnd(name, ranks, **{"launcher_code": code, "launcher_told": True, **more})


def decide(*hosts: HostEnd, reason: str = "it ended") -> Verdict:
    return judge(State.FAILED, reason, hosts)


def named(*hosts: HostEnd) -> int | str | None:
    """Return the rank or the host named as the first failure; None for undetermined."""
    first = decide(*hosts).first_failure
    return None if first is None else first.host if first.rank is None else first.rank


def suspects(*hosts: HostEnd) -> set[int | str]:
    verdict = decide(*hosts)
    assert verdict.undetermined
    return {cause.host if cause.rank is None else cause.rank for cause in verdict.candidates}
