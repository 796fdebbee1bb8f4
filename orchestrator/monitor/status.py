"""What a run is doing, as its directory tells it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from orchestrator.agent.processes import read_process
from orchestrator.monitor.records import Records
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.rundir import RunDir
    from orchestrator.slurm.queue import Answer

_START_SECONDS = 60.0  # for a supervisor to say that it lives; Python may come from a slow shared disk


def statuses(runs: Sequence[RunDir]) -> list[dict[str, Any]]:
    """Return current_status of many runs; Slurm is asked once for all of them."""
    answer = None
    if any(run.slurm_file.exists() for run in runs):
        from orchestrator.monitor.slurm import ask  # noqa: PLC0415 - only runs on Slurm need it

        answer = ask(runs)
    return [current_status(run, answer) for run in runs]


def current_status(run: RunDir, answer: Answer | None = None) -> dict[str, Any]:
    """Return state, since (epoch seconds) and reason; a run whose supervisor is gone is LOST.

    Args:
        run: the run.
        answer: what Slurm has been asked about it, if it has been.
    """
    status = run.status()
    state: State = status["state"]
    if not state.is_final and run.slurm_job():
        from orchestrator.monitor.slurm import ask, seen_by_slurm  # noqa: PLC0415

        answer = answer or ask([run])
        return run.status() if answer is None else seen_by_slurm(run, status, answer)
    if state.is_final or not _is_orphaned(run, status):
        return status
    again = run.status()  # the verdict may have been written between the two looks
    if again["state"].is_final:
        return again
    if not run.path.is_dir():
        return dict(status, state=State.LOST, reason=f"its directory is gone: {run.path}")
    attempts = run.attempts()
    if attempts and not attempts[-1].control_file.exists() and "supervisor" in run.record():
        from orchestrator.notify.later import tell_of_end  # noqa: PLC0415 - few runs end so

        tell_of_end(run)
        reason = "its supervisor is gone and left no verdict (see supervisor.log); its hosts have given it up"
        return dict(status, state=State.LOST, reason=reason)
    reason = (
        "its supervisor is gone and left no verdict (see supervisor.log); agents end their ranks when the "
        f"lease runs out; until then `orchestrate supervise {run.path}` takes the run over"
    )
    return dict(status, state=State.LOST, reason=reason)


def _is_orphaned(run: RunDir, status: dict[str, Any]) -> bool:
    """Tell whether the supervisor is surely gone; on another host than its own that cannot be seen."""
    supervisor = run.supervisor()
    if supervisor is None and status["state"] is State.PENDING:
        return False  # a point of a sweep: its turn has not come
    if supervisor is None:
        return bool(time.time() - float(status["since"] or 0) > _START_SECONDS)
    if supervisor.get("host") != socket.gethostname():
        return False
    process = read_process(int(supervisor["pid"]))
    return process is None or process.started != supervisor.get("started")


def events(run: RunDir) -> list[dict[str, Any]]:
    """Return the run's events so far; a line still being written is left for the next time."""
    try:
        return list(Records(run.events_file).new())
    except OSError:
        return []


def host_rows(run: RunDir) -> list[dict[str, str]]:
    """Return host, state, ranks and message for every host of the run."""
    verdict = run.verdict()
    if verdict is not None and verdict.get("hosts"):
        return [_from_verdict(host) for host in verdict["hosts"]]
    return _from_events(run)


def _from_verdict(host: dict[str, Any]) -> dict[str, str]:
    ranks = host["ranks"]
    counts: dict[str, int] = {}
    for rank in ranks:
        counts[rank["role"]] = counts.get(rank["role"], 0) + 1
    told = next((rank["message"] for rank in ranks if rank["role"] in ("cause", "candidate")), "")
    summary = ", ".join(f"{count} {role}" for role, count in counts.items())
    return {
        "host": host["name"],
        "state": host["state"],
        "ranks": summary,
        "message": told or host["message"],
    }


def _from_events(run: RunDir) -> list[dict[str, str]]:
    rows = {
        host.name: {"host": host.name, "state": "waiting", "ranks": f"{len(host.slots)}", "message": ""}
        for host in run.latest_plan().hosts
    }
    states = {"host_ready": "ready", "launcher_started": "running", "host_ended": "ended"}
    for event in events(run):
        row = rows.get(event.get("host", ""))
        if row is not None and event["event"] in states:
            row["state"] = states[event["event"]]
    return list(rows.values())
