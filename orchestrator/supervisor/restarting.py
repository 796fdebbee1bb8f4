"""What follows an attempt on hosts that a scheduler gave: a verdict, or another try on other hosts."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.agent.main import TOLD_TO_END
from orchestrator.rundir import read_json
from orchestrator.states import State
from orchestrator.supervisor.beginning import CLOCK_SECONDS
from orchestrator.verdict.judge import Cause, Verdict
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir
    from orchestrator.supervisor.scheduler import Interruption, Scheduler
    from orchestrator.verdict.evidence import HostEnd

_NO_STEP = "Unable to create step for job"  # srun
_KILLED = (signal.SIGTERM, signal.SIGKILL)


class Restarting:
    """Decides whether a run starts again; it does for what its script has no fault in.

    That is: its hosts were taken away; a host was lost; Slurm could not use the hosts that it gave; the time
    limit of the hosts was near and a checkpoint was saved since this attempt began.

    Attributes:
        near_limit: the attempt was ended because the hosts' time limit was near.
    """

    def __init__(self, run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler) -> None:
        self._run_dir = run_dir
        self._plan = plan
        self._scheduler = scheduler
        self._began = time.time()
        self.near_limit = False
        self._interruption: Interruption | None = None

    def too_many(self) -> Verdict | None:
        """Return the end of a run that has been queued again more often than it may."""
        times, limit = self._counted(), self._plan.max_restarts
        if times <= limit:
            return None
        last = [attempt.verdict_file for attempt in self._run_dir.attempts()][-1:]
        said = _summary_in(last[0]) if last else ""
        reason = f"queued again {counted(times, 'time')}, and max_restarts is {limit}"
        return Verdict(State.FAILED, f"{reason}; the last attempt: {said}" if said else reason)

    def _counted(self, before: float = math.inf) -> int:
        """Return how many restarts count: all but those at a time limit, each of which followed a checkpoint.

        Args:
            before: the attempt that asks; those before it have ended.
        """
        if not self._plan.max_restarts:
            return self._scheduler.restarts  # none is wanted, for whatever reason
        earlier = [each for each in self._run_dir.attempts() if each.number < before]
        ends = [str((read_json(each.verdict_file) or {}).get("state")) for each in earlier]
        return self._scheduler.restarts - ends.count(State.TIMEOUT)

    async def explained(self, verdict: Verdict, number: int) -> Verdict:
        """Return the verdict on an attempt in which the scheduler's hand is seen."""
        if not self._scheduler.key or not _may_be_its_doing(verdict):
            return verdict
        found = self._interruption = await self._scheduler.interruption(self._heard(number))
        if found is None:
            return verdict
        told = {"state": found.state, "reason": found.reason, "requeued": found.requeued}
        self._run_dir.add_event("interruption", **told)
        if found.unclear and any(host.lost for host in verdict.hosts):
            return verdict  # it has noticed what we had
        hosts = tuple(_not_its_fault(host) for host in verdict.hosts)
        causes = (Cause(found.host, None, None, None, None, found.reason, None),) if found.host else ()
        return Verdict(found.state, found.reason, next(iter(causes), None), causes, hosts)

    def _heard(self, number: int) -> str:
        try:
            return self._run_dir.attempt(number).launcher_log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    async def decide(self, verdict: Verdict, number: int) -> Verdict | None:
        """Return the run's verdict; None when the run is queued again."""
        if self._interruption is not None and self._interruption.requeued:
            self._wait_again(verdict.summary)
            return None
        lost = [host.name for host in verdict.hosts if host.lost and verdict.state is State.FAILED]
        why_not = self._why_not(verdict, number, lost)
        if why_not is None:
            self._run_dir.add_event("requeue", reason=verdict.summary, without=lost)
            self._wait_again(verdict.summary)
            why_not = await self._scheduler.requeue(lost)
            if not why_not:
                return None
        if not why_not:
            return verdict
        return replace(verdict, summary=f"{verdict.summary}; not started again: {why_not}")

    def _wait_again(self, reason: str) -> None:
        self._run_dir.write_status(State.PENDING, f"queued again: {reason}")

    def _why_not(self, verdict: Verdict, number: int, lost: list[str]) -> str | None:
        """Return why the run is not to be started again ("" where nobody would expect it); None if it is."""
        taken = self._interruption is not None and self._interruption.may_requeue
        out_of_time = self.near_limit and verdict.state is State.TIMEOUT
        no_fault = bool(lost) or taken or self._unusable(verdict, number)
        if not self._scheduler.key or not (no_fault or out_of_time):
            return ""
        limit = self._plan.max_restarts
        if (no_fault or not limit) and self._counted(number) >= limit:
            return f"max_restarts is {limit}"
        return None if no_fault else self._why_no_more_time(number)

    def _unusable(self, verdict: Verdict, number: int) -> bool:
        """Tell whether Slurm has given hosts again on which it cannot start anything.

        22.05 loses the GPUs of a job that it queued again for a lost node, when it starts the job in the
        moment in which it declares that node down.
        """
        again = self._scheduler.restarts > 0 and verdict.state is State.FAILED
        return again and _NO_STEP in self._heard(number)

    def _why_no_more_time(self, number: int) -> str | None:
        """Return why more time would not help: without a new checkpoint, all would be the same again."""
        if self._plan.checkpoint_dir is None:
            return "train.checkpoint_dir is not set, so it would begin from nothing"
        from orchestrator.checkpoints import last_complete  # noqa: PLC0415 - few runs come here
        from orchestrator.checkpoints.tag import SUFFIX  # noqa: PLC0415 - as above

        before = self._run_dir.plan(self._run_dir.attempt(number)).resume_tag
        tag = last_complete(Path(self._plan.checkpoint_dir))
        old = tag is None or before in (tag.name, tag.name + SUFFIX)
        if tag is None or old or tag.modified < self._began - CLOCK_SECONDS:
            return f"no complete checkpoint has come into {self._plan.checkpoint_dir} in this attempt"
        return None


def _may_be_its_doing(verdict: Verdict) -> bool:
    """Tell whether a scheduler that ends a job can make an attempt end so."""
    if verdict.state is State.CANCELLED:
        return verdict.summary != "cancelled by the user"
    if verdict.state is not State.FAILED:
        return False
    ranks = [rank for host in verdict.hosts for rank in host.ranks if rank.failed and not rank.stopped]
    killed = any(rank.signal in _KILLED or rank.exit_code in (128 + 15, 128 + 9) for rank in ranks)
    return killed or any(host.failure for host in verdict.hosts)


def _not_its_fault(host: HostEnd) -> HostEnd:
    """Return a host that was told to end as one that did: Slurm's signal reaches agents and ranks alike."""
    return replace(host, failure="", time=None) if host.failure == TOLD_TO_END else host


def _summary_in(path: Path) -> str:
    return str((read_json(path) or {}).get("summary", ""))
