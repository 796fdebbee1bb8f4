"""Look at ranks that are busy and go no further, tell who waits for whom, and end what cannot resolve."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from orchestrator.collector import stall
from orchestrator.collector.stall import Look, Stall
from orchestrator.monitor.flight import examine, read_all
from orchestrator.monitor.stacks import where
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from orchestrator.monitor.flight import Finding
    from orchestrator.monitor.flight_file import Record
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir
    from orchestrator.supervisor.board import Board
    from orchestrator.supervisor.dump_box import Dump

    Collect = Callable[[Board, Iterable[int], float], Awaitable[dict[int, Dump]]]

_DUMP_SECONDS = 45.0
_MOST = 1024  # ranks of which stacks are taken: some 30 KB each, and a file of some MB if NCCL is in use
_BETWEEN = 20.0  # seconds between two looks; a third of the time without a sign where that is less
_ARRIVE_SECONDS = 2.0  # that a host without the shared disk gets to send what a recorder has written
_AGAIN_SECONDS = 60.0  # until ranks that were at work are looked at again; twice as long each time


async def recorded(dumps: dict[int, Dump], folder: Path) -> dict[int, Record]:
    """Return what flight recorders wrote just now, by rank; in a thread, as it is some MB a rank."""
    fresh = {rank for rank, dump in dumps.items() if dump.flight}
    if not fresh:
        return {}
    found = await asyncio.to_thread(read_all, folder, fresh)
    if fresh - found.keys():
        await asyncio.sleep(_ARRIVE_SECONDS)
        found = await asyncio.to_thread(read_all, folder, fresh)
    return found


async def finding_of(dumps: dict[int, Dump], folder: Path, world: int) -> Finding | None:
    """Return why ranks wait, as flight recorders tell it."""
    return examine(await recorded(dumps, folder), world)


class Stalling:
    """What is known of a stall of one attempt.

    Args:
        run_dir: the run.
        plan: the attempt's plan.
        number: the attempt.
        board: what its agents say.
        collect: gets the stacks of ranks.
    """

    def __init__(
        self, run_dir: RunDir, plan: LaunchPlan, number: int, board: Board, collect: Collect
    ) -> None:
        self._run_dir, self._plan, self._board, self._collect = run_dir, plan, board, collect
        self._dumps = run_dir.attempt(number).dumps
        self._task: asyncio.Task[None] | None = None
        self._told: str = ""  # the name of the event that was told, while it lasts
        self._next, self._pause = 0.0, _AGAIN_SECONDS

    def hear(self, event: dict[str, Any]) -> None:
        """Take note that no rank has given a sign for long."""
        now = time.monotonic()
        if self._task is not None or self._told or self._board.ending is not None or now < self._next:
            return
        self._next, self._pause = now + self._pause, 2 * self._pause
        self._task = asyncio.get_running_loop().create_task(self._judge(event))
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            print(f"stall: {error!r}", flush=True)

    def over(self) -> None:
        """Take note that a rank has given a sign."""
        self.stop()
        self._next, self._pause = 0.0, _AGAIN_SECONDS
        if self._told and self._board.ending is None:
            self._board.abort.clear()
            self._run_dir.add_event(f"{self._told}_over")
            self._run_dir.write_status(State.RUNNING)
        self._told = ""

    def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()

    async def _judge(self, event: dict[str, Any]) -> None:
        ranks = _sample(event["ranks"], self._plan)
        found, look, dumps = await self._twice(ranks, min(_BETWEEN, event["silent"] / 3))
        if found is None or self._board.ending is not None:
            if found is None:
                self._board.abort.clear()
            return
        words = stall.describe(found, look, time.time() - event["since"], event.get("usual"))
        self._tell(found, look, dumps, event, words)
        stop_after = self._plan.monitor.stop_after
        if found.proven and not isinstance(stop_after, str):
            await asyncio.sleep(stop_after)
            again, _, _ = await self._twice(ranks, 0.0)
            if again is not None and again.proven:
                self._board.end(State.FAILED, words)

    async def _twice(self, ranks: list[int], between: float) -> tuple[Stall | None, Look, dict[int, Dump]]:
        first, _ = await self._look(ranks)
        await asyncio.sleep(between)
        second, dumps = await self._look(ranks)
        return stall.judge(first, second, self._plan.world_size), second, dumps

    async def _look(self, ranks: list[int]) -> tuple[Look, dict[int, Dump]]:
        dumps = await self._collect(self._board, ranks, _DUMP_SECONDS)
        places = {rank: where(dump.text) if dump.text else None for rank, dump in dumps.items()}
        return Look(places, await recorded(dumps, self._dumps)), dumps

    def _tell(
        self, found: Stall, look: Look, dumps: dict[int, Dump], event: dict[str, Any], words: str
    ) -> None:
        """Write it down: as a hang where it is proven, as a stall where somebody may still come."""
        self._told = "hang" if found.proven else "stall"
        of = set(found.culprits or found.waiting)
        self._run_dir.add_event(
            self._told,
            ranks=list(found.culprits),
            waiting=list(found.waiting),
            hosts=[host.name for host in self._plan.hosts if of & set(host.ranks)],
            silent=event["silent"],
            since=event["since"],
            where={str(rank): str(place) for rank, place in sorted(look.places.items()) if place is not None},
            flight=None if found.finding is None else found.finding.to_json(),
            dumps=[dumps[rank].file for rank in sorted(dumps) if dumps[rank].file],
            how=next((dump.how for dump in dumps.values() if dump.how), ""),
            words=words,
        )
        self._run_dir.write_status(State.RUNNING, words)


def _sample(ranks: list[int], plan: LaunchPlan) -> list[int]:
    """Return the ranks to look at: all, or of a large run as many of every host."""
    if len(ranks) <= _MOST:
        return ranks
    running = set(ranks)
    each = max(1, _MOST // len(plan.hosts))
    own = ([rank for rank in host.ranks if rank in running][:each] for host in plan.hosts)
    return [rank for of in own for rank in of][:_MOST]
