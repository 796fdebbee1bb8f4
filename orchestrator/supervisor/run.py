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

from orchestrator.agent.processes import read_process
from orchestrator.rundir import RunDir, write_json
from orchestrator.states import State
from orchestrator.supervisor.attempt import Attempt
from orchestrator.verdict.document import to_json
from orchestrator.verdict.judge import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan import LaunchPlan

_CANCEL_POLL = 0.2  # seconds
_PORT_ATTEMPTS = 3
_VERDICT_BYTES = 1024  # of a rank in the verdict, with a long message


def supervise(path: Path) -> int:
    """Run the job in a run directory to its verdict; return the exit code for a process.

    Returns:
        0 when every rank ended with 0; 1 when the run failed, was cancelled or ran out of time;
        3 when there is nothing to run.
    """
    run_dir = RunDir(path)
    try:
        lock = (run_dir.path / "supervisor.lock").open("w")
        plan = run_dir.plan()
    except (OSError, ValueError) as error:
        print(f"orchestrate: cannot run {path}: {error}", file=sys.stderr)
        return 3
    with lock:
        refusal = _refusal(lock.fileno(), run_dir)
        if refusal:
            print(f"orchestrate: {run_dir.run_id} {refusal}", file=sys.stderr)
            return 3
        return _supervise(run_dir, plan)


def _refusal(lock: int, run_dir: RunDir) -> str:
    """Return why this process may not drive the run; "" when it may."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "has a supervisor already"
    if run_dir.verdict() is not None:
        return "has a verdict already"
    begun = "supervisor" in run_dir.record()
    if begun and not run_dir.attempts()[-1].control_file.exists():
        return "has been given up by its hosts, the lease has run out; submit the job again"
    return ""


def _supervise(run_dir: RunDir, plan: LaunchPlan) -> int:
    run_dir.reserve(_VERDICT_BYTES * (plan.world_size + 64))
    started = _record_ourselves(run_dir)
    run_dir.write_status(State.STARTING)
    run_dir.add_event("supervisor", pid=os.getpid())
    try:
        verdict = asyncio.run(Supervisor(run_dir, plan, started).run())
    except Exception as error:  # noqa: BLE001 - whatever it is, the run must not be left without a verdict
        traceback.print_exc()
        verdict = Verdict(State.FAILED, f"the supervisor failed: {error!r}; see supervisor.log")
    with contextlib.suppress(FileNotFoundError):
        run_dir.secrets_file.unlink()
    run_dir.write_verdict(to_json(verdict, plan.run_id, started, time.time()))
    run_dir.add_event("verdict", state=verdict.state, summary=verdict.summary)
    return 0 if verdict.state is State.SUCCEEDED else 1


def _record_ourselves(run_dir: RunDir) -> float:
    """Write down which process drives the run; return when its first supervisor did (epoch seconds)."""
    own = read_process(os.getpid())
    record = run_dir.record()
    record["supervisor"] = {
        "pid": os.getpid(),
        "started": None if own is None else own.started,
        "host": socket.gethostname(),
    }
    started = float(record.setdefault("started", time.time()))
    write_json(run_dir.record_file, record)
    return started


class Supervisor:
    """One run: attempt after attempt until a verdict stands, with an ear for cancel and the clock."""

    def __init__(self, run_dir: RunDir, plan: LaunchPlan, started: float) -> None:
        self._run_dir = run_dir
        self._started = started
        self._plan = plan
        self._attempt: Attempt | None = None
        self._end: tuple[State, str] | None = None

    async def run(self) -> Verdict:
        """Return the verdict on the last attempt."""
        watchers = [asyncio.create_task(self._watch_cancel()), asyncio.create_task(self._watch_clock())]
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish, State.CANCELLED, "the supervisor was told to end")
        try:
            return await self._attempts()
        finally:
            for watcher in watchers:
                watcher.cancel()

    async def _attempts(self) -> Verdict:
        number = max(1, len(self._run_dir.attempts()))
        while True:
            verdict = await self._one(number)
            with contextlib.suppress(OSError):
                write_json(self._run_dir.attempt(number).path / "verdict.json", self._as_json(verdict))
            again = verdict.port_in_use and self._plan.master_port is None and number < _PORT_ATTEMPTS
            if not again or self._end is not None:
                return verdict
            number += 1
            self._run_dir.add_event("retry", reason="the master port was taken", attempt=number)
            self._run_dir.write_status(State.STARTING, "the master port was taken; trying another")

    def _as_json(self, verdict: Verdict) -> dict[str, object]:
        return to_json(verdict, self._plan.run_id, None, time.time())

    async def _one(self, number: int) -> Verdict:
        if not self._run_dir.attempt(number).rendered.is_dir():
            from orchestrator.bundle import write_bundle  # noqa: PLC0415 - a first attempt starts without jinja
            from orchestrator.render import render  # noqa: PLC0415

            write_bundle(self._run_dir, render(self._plan, number), number)
        self._attempt = Attempt(self._plan, self._run_dir, number)
        if self._end is not None:
            self._attempt.board.end(*self._end)
        return await self._attempt.run()

    def _finish(self, state: State, reason: str) -> None:
        if self._end is None:
            self._end = (state, reason)
        if self._attempt is not None:
            self._attempt.board.end(state, reason)

    async def _watch_cancel(self) -> None:
        while not self._run_dir.cancel_file.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(_CANCEL_POLL)
        self._finish(State.CANCELLED, "cancelled by the user")

    async def _watch_clock(self) -> None:
        if self._plan.time_limit is not None:
            await asyncio.sleep(self._started + self._plan.time_limit - time.time())
            self._finish(State.TIMEOUT, f"the time limit of {self._plan.time_limit:g} s ran out")
