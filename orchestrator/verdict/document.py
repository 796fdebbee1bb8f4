"""A verdict as `verdict.json` holds it, and what each rank was in a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.plan import file_name
from orchestrator.states import State

if TYPE_CHECKING:
    from orchestrator.verdict.evidence import HostEnd, RankEnd
    from orchestrator.verdict.judge import Cause, Verdict


_TOLD = ("victim", "stopped")  # what such a rank said last has nothing to do with why it ended


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
        "message": host.failure
        or ("" if host.launcher_told or not host.launcher_code else host.launcher_message),
        "launcher_exit_code": host.launcher_code,
        "ranks": [
            {
                "rank": rank.rank,
                "local_rank": rank.local_rank,
                "exit_code": rank.exit_code,
                "signal": rank.signal,
                "role": role[rank.rank],
                "time": rank.time,
                "message": "" if role[rank.rank] in _TOLD else rank.message,
            }
            for rank in host.ranks
        ],
    }


def roles(verdict: Verdict) -> dict[int, str]:
    """Return what each rank was in the failure.

    That is ok, cause, candidate, victim, stopped (nothing failed), failed, unknown, or never started.
    """
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
