"""Run the collector beside an attempt, note what it finds, and end a run that hangs.

The collector is a process of its own, so that 50,000 log lines a second take nothing from the control
channel. A thread reads what it says. One that dies is started again, a few times; the run does not need it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from orchestrator.collector import END
from orchestrator.collector.hang import judge
from orchestrator.monitor.records import Records
from orchestrator.monitor.stacks import where
from orchestrator.states import State
from orchestrator.supervisor.dumping import collect_dumps
from orchestrator.supervisor.stalling import Stalling, finding_of
from orchestrator.supervisor.told import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.collector.hang import Hang
    from orchestrator.monitor.stacks import Place
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir
    from orchestrator.supervisor.board import Board
    from orchestrator.supervisor.dump_box import Dump

    Places = dict[int, Place | None]

_RESTARTS = 5
_END_SECONDS = 1.0  # the verdict waits so long for the last bytes to be in metrics.jsonl
_LAST_SECONDS = 25.0  # after the verdict, for the last checkpoint
_DUMP_SECONDS = 30.0
_MOST_SILENT, _MOST_OTHERS = 512, 32  # ranks whose stacks are taken: a dump stops a rank for a moment
_AGAIN_SECONDS = 60.0  # until silent ranks that were no hang are looked at again; twice as long each time
_ONCE = {
    "first_step": ("attempt",),
    "checkpoint": ("tag", "ended"),
    "gpu_fault": ("host", "gpu", "code", "time"),
    "oom_kill": ("host", "time", "text"),
}
"""By what an event is known that a collector which was started anew may tell again."""


_OURS = {"taken_in", "hang", "hang_over", "stall", "stall_over", None}
"""What the collector suspects or asks for; it is written down when it has been looked at."""


def start_watching(run_dir: RunDir, plan: LaunchPlan, number: int, board: Board) -> Watching | None:
    """Start the collector of an attempt; None where that fails."""
    try:
        return Watching(run_dir, plan, number, board)
    except Exception:  # noqa: BLE001 - whatever it is, the run must not suffer from it
        traceback.print_exc()
        return None


class Watching:
    """The collector of one attempt.

    Args:
        run_dir: the run.
        plan: the attempt's plan.
        number: the attempt.
        board: what its agents say.
    """

    def __init__(self, run_dir: RunDir, plan: LaunchPlan, number: int, board: Board) -> None:
        self._run_dir, self._plan, self._number, self._board = run_dir, plan, number, board
        self._dumps = run_dir.attempt(number).dumps
        self._told = {key for event in Records(run_dir.events_file).new() if (key := _key(event))}
        self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        self._over = threading.Event()
        self._taken_in = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._read, name="collector", daemon=True)
        self._hang: Hang | None = None
        self._silence: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_judgement = 0.0
        self._pause = _AGAIN_SECONDS
        self._stalling = Stalling(run_dir, plan, number, board, collect_dumps)
        self._start()

    def _start(self) -> None:
        """Start the thread with the signals of told.py blocked.

        One that comes while the verdict is written would be given to it, with death as its default.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    # -- the process (in the thread) ------------------------------------------------------------

    def _read(self) -> None:
        """Start the collector, pass on what it says, and start it again when it dies."""
        for turn in range(_RESTARTS + 1):
            try:
                code = self._one()
            except OSError as error:
                code = str(error)
            if self._over.wait(2.0**turn):
                break
            self._run_dir.add_event("collector_ended", code=code, again=turn < _RESTARTS)
        self._pass_on({"event": "taken_in"})  # nobody is there to say so, and the verdict should not wait

    def _one(self) -> int | str:
        command = [sys.executable, "-m", "orchestrator.collector", str(self._run_dir.path), str(self._number)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            self._process = process
            if self._over.is_set():
                self._tell_end()
            for line in process.stdout or ():
                with suppress(ValueError):
                    self._pass_on(json.loads(line))
            return process.wait()

    def _pass_on(self, event: dict[str, Any]) -> None:
        loop = self._loop
        if loop is None:
            self._note(event)
            return
        with suppress(RuntimeError):  # the loop has closed this moment
            loop.call_soon_threadsafe(self._hear, event)

    def _tell_end(self) -> None:
        process = self._process
        if process is not None and process.stdin is not None:
            with suppress(OSError, ValueError):
                process.stdin.write(END)
                process.stdin.close()

    # -- the attempt's end ----------------------------------------------------------------------

    async def end(self) -> None:
        """Have the last bytes taken in, but wait no longer than a second for it."""
        for task in self._tasks:
            task.cancel()
        self._stalling.stop()
        self._over.set()
        self._tell_end()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._taken_in.wait(), _END_SECONDS)
        self._loop = None

    def finish(self) -> None:
        """Wait until the collector has ended; it is killed when it does not."""
        self._thread.join(_LAST_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join(1)

    # -- what it says ---------------------------------------------------------------------------

    def _hear(self, event: dict[str, Any]) -> None:
        what = event.get("event")
        if what == "taken_in":
            self._taken_in.set()
        elif what == "hang":
            self._on_silence(event)
        elif what == "hang_over":
            self._on_over()
        elif what == "stall" and self._hang is None:
            self._stalling.hear(event)
        elif what == "stall_over":
            self._stalling.over()
        else:
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep an event that is not yet in the run's log of them."""
        key = _key(event)
        if event.get("event") in _OURS or (key and key in self._told):
            return
        self._told.add(key)
        self._run_dir.add_event(**event)

    def _on_silence(self, event: dict[str, Any]) -> None:
        before, self._silence = self._silence, event
        if self._hang is not None and set(self._hang.stuck) & set(before["ranks"]) - set(event["ranks"]):
            self._on_over()  # others may be silent still, as they wait for what these do now
        now = time.monotonic()
        if self._hang is not None or self._board.ending is not None or now < self._next_judgement:
            return
        self._next_judgement, self._pause = now + self._pause, 2 * self._pause
        self._spawn(event)

    def _spawn(self, event: dict[str, Any]) -> None:
        task = asyncio.get_running_loop().create_task(self._judge(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_over(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._next_judgement, self._pause = 0.0, _AGAIN_SECONDS
        self._forget()

    def _forget(self) -> None:
        if self._hang is not None and self._board.ending is None:
            self._hang = None
            self._board.abort.clear()
            self._run_dir.add_event("hang_over")
            self._run_dir.write_status(State.RUNNING)

    async def _examine(self, event: dict[str, Any]) -> tuple[Hang | None, dict[int, Dump], Places]:
        silent, others = event["ranks"], event["others"]
        wanted = [*silent[:_MOST_SILENT], *others[:_MOST_OTHERS]]
        dumps = await collect_dumps(self._board, wanted, _DUMP_SECONDS)
        places = {rank: where(dump.text) if dump.text else None for rank, dump in dumps.items()}
        return judge(silent, others, places), dumps, places

    async def _judge(self, event: dict[str, Any]) -> None:
        """See by their stacks whether silent ranks hang; if so say it, and end the run when it lasts."""
        self._hang, dumps, places = await self._examine(event)
        if self._hang is None:
            self._board.abort.clear()
        if self._hang is None or self._board.ending is not None:
            return
        finding = await finding_of(dumps, self._dumps, self._plan.world_size)
        stuck = self._hang.stuck
        hosts = self._hosts(stuck)
        self._run_dir.add_event(
            "hang",
            ranks=stuck,
            waiting=self._hang.waiting,
            hosts=hosts,
            silent=event["silent"],
            since=event["since"],
            where={str(rank): str(places[rank]) for rank in sorted(places) if places[rank] is not None},
            dumps=[dumps[rank].file for rank in sorted(dumps) if dumps[rank].file],
            how=_how(dumps.values()),
            flight=None if finding is None else finding.to_json(),
        )
        words = describe(self._hang, hosts, places) + ("" if finding is None else f" ({finding.words})")
        self._run_dir.write_status(State.RUNNING, words)
        stop_after = self._plan.monitor.stop_after
        if not isinstance(stop_after, str):
            await asyncio.sleep(stop_after)
            while not await self._may_end(places):  # noqa: ASYNC110 - nobody tells when a stack can be had
                await asyncio.sleep(max(stop_after, _AGAIN_SECONDS))
            silent = time.time() - event["since"]
            self._board.end(State.FAILED, f"{words}; nothing has moved for {silent:.0f} s")

    async def _may_end(self, before: Places) -> bool:
        """Look once more before the run is ended: nobody has moved, and nobody may be at work.

        Others whose stacks cannot be had, or that wait for a GPU only, may be: the run is left alone then.
        """
        hang, _, places = await self._examine(self._silence)
        if hang is None or any(_differ(before.get(rank), places.get(rank)) for rank in hang.stuck):
            self._on_over()  # which ends this task, too
            return False
        others = [places.get(rank) for rank in self._silence["others"][:_MOST_OTHERS]]
        return all(place is not None and place.waiting and not place.guessed for place in others)

    def _hosts(self, ranks: Iterable[int]) -> list[str]:
        wanted = set(ranks)
        return [host.name for host in self._plan.hosts if wanted & set(host.ranks)]


def describe(hang: Hang, hosts: list[str], places: dict[int, Place | None]) -> str:
    """Return the hang in words: which ranks, where they stand, who waits."""
    stuck = hang.stuck
    who = f"rank {stuck[0]}" if len(stuck) == 1 else f"ranks {', '.join(map(str, stuck[:8]))}"
    more = f" and {len(stuck) - 8} more" if len(stuck) > 8 else ""
    on = f" on {hosts[0]}" if len(hosts) == 1 else f" on {len(hosts)} hosts"
    at = next((f" at {place}" for rank in stuck if (place := places.get(rank)) is not None), "")
    count = len(hang.waiting)
    waits = "" if not count else ", while another one waits" if count == 1 else f", while {count} others wait"
    return f"{who}{more}{on} hang{'s' * (len(stuck) == 1)}{at}{waits}"


def _differ(before: Place | None, now: Place | None) -> bool:
    return before is not None and now is not None and str(before) != str(now)


def _how(dumps: Iterable[Dump]) -> str:
    return next((dump.how for dump in dumps if dump.how), "")


def _key(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return by what an event is known; () for one that may come often."""
    names = _ONCE.get(str(event.get("event")))
    return () if names is None else (event["event"], *(event.get(name) for name in names))
