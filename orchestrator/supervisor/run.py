"""Drive one run from its directory: attempts, cancel, time limit, verdict."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from orchestrator.errors import CheckpointError, JobFileError, SubmitError
from orchestrator.notify.later import tell_of_end
from orchestrator.notify.notifier import start_notifying
from orchestrator.rundir import RunDir, known_process, write_json
from orchestrator.states import State
from orchestrator.supervisor import told
from orchestrator.supervisor.attempt import Attempt
from orchestrator.supervisor.beginning import begin_attempt, first_attempt, place_attempt
from orchestrator.supervisor.choosing import make_scheduler
from orchestrator.supervisor.diagnosing import write_diagnosis
from orchestrator.supervisor.keeping import start_keeping
from orchestrator.supervisor.restarting import Restarting
from orchestrator.supervisor.watching import start_watching
from orchestrator.verdict.document import to_json
from orchestrator.verdict.judge import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from orchestrator.checkpoints.universal import Start
    from orchestrator.plan import LaunchPlan
    from orchestrator.supervisor.reshaping import Reshaping
    from orchestrator.supervisor.scheduler import Scheduler
    from orchestrator.supervisor.watching import Watching

_CANCEL_POLL = 0.2  # seconds
_PORT_ATTEMPTS = 3
_VERDICT_BYTES = 1024  # of a rank in the verdict, with a long message


def supervise(path: Path) -> int:
    """Run the job in a run directory to its verdict; return the exit code for a process.

    Returns:
        0 when every rank ended with 0, or the run waits for other hosts; 1 when the run failed, was
        cancelled or ran out of time; 3 when there is nothing to run.
    """
    told.hold()
    run_dir = RunDir(path)
    try:
        lock = (run_dir.path / "supervisor.lock").open("w")
        plan = run_dir.plan()
        scheduler = make_scheduler(plan)
    except (OSError, ValueError, SubmitError) as error:
        print(f"orchestrate: cannot run {path}: {error}", file=sys.stderr)
        return 3
    with lock:
        refusal = _refusal(lock.fileno(), run_dir, plan)
        if refusal:
            print(f"orchestrate: {run_dir.run_id} {refusal}", file=sys.stderr)
            verdict = run_dir.verdict()
            return 0 if plan.slurm and verdict and verdict["state"] == State.SUCCEEDED else 3
        return _supervise(run_dir, plan, scheduler)


def _refusal(lock: int, run_dir: RunDir, plan: LaunchPlan) -> str:
    """Return why this process may not drive the run; "" when it may."""
    alone = _locked(lock)
    if run_dir.verdict() is not None:  # who has written it keeps the lock until the last messages are out
        return "has a verdict already"
    if not alone:
        return "has a supervisor already"
    begun = "supervisor" in run_dir.record()
    if begun and plan.slurm is None and not run_dir.attempts()[-1].control_file.exists():
        return "has been given up by its hosts, the lease has run out; submit the job again"
    return ""


def _locked(handle: int) -> bool:
    """Lock a file for this process; tell whether nobody else has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _supervise(run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler) -> int:
    run_dir.reserve(_VERDICT_BYTES * (plan.world_size + 64))
    started = _record_ourselves(run_dir)
    scheduler.sign(run_dir)
    run_dir.write_status(State.STARTING)
    run_dir.add_event("supervisor", pid=os.getpid(), host=socket.gethostname(), hosts_key=scheduler.key)
    verdict: Verdict | None
    keeping = start_keeping(run_dir, plan)
    notifier = start_notifying(run_dir, plan)
    supervisor = Supervisor(run_dir, plan, scheduler, started)
    try:
        verdict = asyncio.run(supervisor.run())
    except JobFileError as error:
        verdict = Verdict(State.FAILED, f"the job does not fit the hosts it was given: {error}")
    except CheckpointError as error:
        verdict = Verdict(State.FAILED, f"the run cannot go on from its checkpoint: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it is, the run must not be left without a verdict
        traceback.print_exc()
        verdict = Verdict(State.FAILED, f"the supervisor failed: {error!r}; see {_own_log(run_dir, plan)}")
    if verdict is None:
        if notifier is not None:
            notifier.pause()
        return 0  # the next supervisor goes on, on other hosts
    with contextlib.suppress(FileNotFoundError):
        run_dir.secrets_file.unlink()
    run_dir.write_verdict(to_json(verdict, plan.run_id, started, time.time()))
    run_dir.add_event("verdict", state=verdict.state, summary=verdict.summary)
    write_diagnosis(run_dir)
    if notifier is not None:
        notifier.finish()
    else:
        tell_of_end(run_dir)  # if it could not be started: its secrets must not stay
    if keeping is not None:
        keeping.finish()
    if supervisor.watching is not None:
        supervisor.watching.finish()
    return 0 if verdict.state is State.SUCCEEDED else 1


def _own_log(run_dir: RunDir, plan: LaunchPlan) -> str:
    return run_dir.supervisor_log.name if plan.slurm is None else "slurm-*.out"


def _record_ourselves(run_dir: RunDir) -> float:
    """Write down which process drives the run; return when its first supervisor did (epoch seconds)."""
    record = run_dir.record()
    record["supervisor"] = known_process(os.getpid())
    started = float(record.setdefault("started", time.time()))
    write_json(run_dir.record_file, record)
    return started


class Supervisor:
    """One run: attempt after attempt until a verdict stands, with an ear for cancel and the clock."""

    def __init__(self, run_dir: RunDir, plan: LaunchPlan, scheduler: Scheduler, started: float) -> None:
        self._run_dir = run_dir
        self._started = started
        self._plan = plan
        self._scheduler = scheduler
        self._restarting = Restarting(run_dir, plan, scheduler)
        self._attempt: Attempt | None = None
        self.watching: Watching | None = None
        self._reshaping: Reshaping | None = None
        self._end: tuple[State, str] | None = None

    async def run(self) -> Verdict | None:
        """Return the verdict on the last attempt; None when the run goes on under another supervisor."""
        watchers = [asyncio.create_task(watch) for watch in (self._watch_cancel(), *self._clocks())]
        answers = dict.fromkeys(told.SIGNALS, self._on_told) | {signal.SIGUSR2: self._on_time_limit}
        try:
            with told.listening(asyncio.get_running_loop(), answers):
                return self._restarting.too_many() or await self._attempts()
        finally:
            for watcher in watchers:
                watcher.cancel()

    def _on_told(self) -> None:
        if self._run_dir.cancel_file.exists():
            self._finish(State.CANCELLED, "cancelled by the user")
        else:
            self._finish(State.CANCELLED, "the supervisor was told to end")

    def _on_time_limit(self) -> None:
        self._restarting.near_limit = True
        self._finish(State.TIMEOUT, "the time limit of the Slurm job is near")

    async def _attempts(self) -> Verdict | None:
        number = first_attempt(self._run_dir, self._plan, self._scheduler)
        while True:
            verdict = await self._restarting.explained(await self._one(number), number)
            with contextlib.suppress(OSError):
                write_json(self._run_dir.attempt(number).verdict_file, self._as_json(verdict))
            if self._wants_another_port(verdict, number):
                number += 1
                self._run_dir.add_event("retry", reason="the master port was taken", attempt=number)
                self._run_dir.write_status(State.STARTING, "the master port was taken; trying another")
                continue
            return await self._restarting.decide(verdict, number)

    def _wants_another_port(self, verdict: Verdict, number: int) -> bool:
        again = verdict.port_in_use and self._plan.master_port is None and number < _PORT_ATTEMPTS
        return again and self._end is None

    def _as_json(self, verdict: Verdict) -> dict[str, object]:
        return to_json(verdict, self._plan.run_id, None, time.time())

    async def _one(self, number: int) -> Verdict:
        placed, start = place_attempt(self._run_dir, self._plan, self._scheduler, number)
        if start is not None and not await self._reshaped(placed, start):
            return Verdict(*(self._end or (State.FAILED, "")))
        plan = begin_attempt(self._run_dir, self._plan, placed, number)
        self._run_dir.add_event("attempt", attempt=number)
        self._attempt = Attempt(plan, self._run_dir, number, self._scheduler.key)
        if self._end is not None:
            self._attempt.board.end(*self._end)
        self.watching = start_watching(self._run_dir, plan, number, self._attempt.board)
        try:
            return await self._attempt.run()
        finally:
            if self.watching is not None:
                await self.watching.end()

    async def _reshaped(self, plan: LaunchPlan, start: Start) -> bool:
        """Make the checkpoint fit that the attempt goes on from; return whether the run goes on then."""
        from orchestrator.supervisor.reshaping import Reshaping, make_room  # noqa: PLC0415 - few runs resume

        self._reshaping = Reshaping(self._run_dir, plan, start)
        try:
            if start.convert and self._end is None:
                await self._reshaping.make()
        except CheckpointError:
            if self._end is None:
                raise
        finally:
            self._reshaping = None
        if self._end is None:
            make_room(self._run_dir, plan, start)
        return not start.convert or self._end is None

    def _finish(self, state: State, reason: str) -> None:
        if self._end is None:
            self._end = (state, reason)
        if self._reshaping is not None:
            self._reshaping.end()
        if self._attempt is not None:
            self._attempt.board.end(state, reason)

    async def _watch_cancel(self) -> None:
        while not self._run_dir.cancel_file.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(_CANCEL_POLL)
        self._finish(State.CANCELLED, "cancelled by the user")

    def _clocks(self) -> list[Coroutine[None, None, None]]:
        """Return the watch on the job's own time limit, and the one on its hosts'."""
        clocks = []
        if self._plan.time_limit is not None:
            left = self._started + self._plan.time_limit - time.time()
            reason = f"the time limit of {self._plan.time_limit:g} s ran out"
            clocks.append(self._after(left, lambda: self._finish(State.TIMEOUT, reason)))
        if self._scheduler.time_left is not None:
            clocks.append(self._after(self._scheduler.time_left, self._on_time_limit))
        return clocks

    async def _after(self, seconds: float, act: Callable[[], None]) -> None:
        await asyncio.sleep(seconds)
        act()
