"""What is known of a run when somebody is to be told of it, read from its directory."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.progress import progress
from orchestrator.notify.message import Facts
from orchestrator.rundir import read_json
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir


def facts_of(run: RunDir, plan: LaunchPlan, status: Mapping[str, Any], reason: str = "") -> Facts:
    """Return the facts.

    Args:
        run: the run.
        plan: its plan.
        status: its state, since and reason, as RunDir.status has them.
        reason: what is to be said in place of the status' own reason.
    """
    diagnosis = (read_json(run.diagnosis_file) or {}) if status["state"].is_final else {}
    ended = float((run.verdict() or {}).get("ended") or time.time())
    began = run.record().get("started")
    return Facts(
        run_id=run.run_id,
        name=plan.name,
        run_dir=str(run.path),
        host=host_of(run),
        shape=shape_words(plan),
        state=str(status["state"]),
        reason=reason or str(diagnosis.get("summary") or status["reason"]),
        category=str(diagnosis.get("category") or ""),
        advice=tuple(map(str, diagnosis.get("advice") or ())),
        seconds=None if began is None else max(0.0, ended - float(began)),
        progress=progress(run),
    )


def host_of(run: RunDir) -> str:
    """Return the machine that the run's directory was made on."""
    return str(run.record().get("submit_host") or socket.gethostname())


def shape_words(plan: LaunchPlan) -> str:
    """Return `64 ranks on 8 hosts (slurm)`."""
    return f"{counted(plan.world_size, 'rank')} on {counted(len(plan.hosts), 'host')} ({plan.backend})"
