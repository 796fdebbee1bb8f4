"""Have ranks' stacks dumped by their hosts' agents, and keep them in the attempt's `dumps`."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.agent.dumping import TOOL
from orchestrator.monitor.stacks import stacks_of, where
from orchestrator.supervisor.dump_box import Dump, keep

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.rundir import AttemptDir
    from orchestrator.supervisor.board import Board

_AGAIN_SECONDS = 3.0  # until an order is repeated to a host that was out of reach
_TAIL_BYTES = 1 << 18
_MOST_GIVEN = 32  # hosts that are sent py-spy, some 4 MB each: all of it is in our memory, before any ping


async def collect_dumps(board: Board, ranks: Iterable[int], seconds: float) -> dict[int, Dump]:
    """Return the stacks of ranks that run, by rank; those of which nothing came have an entry without text.

    A rank whose stacks could not be had is noted on the board: when the attempt is stopped it gets SIGABRT
    first, on which Python's faulthandler writes them into its .err file (see `keep_aborted`).

    Args:
        board: of the attempt that runs.
        ranks: whose.
        seconds: how long to wait for all of it.
    """
    deadline = time.monotonic() + seconds
    wanted = sorted(set(ranks))
    found = await _ask(board, wanted, deadline)
    lacking = [rank for rank in wanted if rank not in found or not found[rank].how]
    if board.dumps.lacking and lacking and await _give_tool(board):
        found |= await _ask(board, lacking, deadline)
    for rank in wanted:
        found.setdefault(
            rank, Dump(rank, _host_of(board, rank), "", "", "", "its host did not answer in time")
        )
    board.abort |= {rank for rank in wanted if not found[rank].how}
    return found


async def _ask(board: Board, ranks: list[int], deadline: float) -> dict[int, Dump]:
    order = board.dumps.begin()
    while (left := deadline - time.monotonic()) > 0:
        missing = [rank for rank in ranks if rank not in board.dumps.of(order)]
        if not missing:
            break
        for state in board.hosts.values():
            own = [rank for rank in missing if rank in state.plan.ranks]
            if own:
                board.server.send(state.plan.name, {"t": "dump", "id": order, "ranks": own})
        await board.wait(lambda: len(board.dumps.of(order)) == len(ranks), min(left, _AGAIN_SECONDS))
    return board.dumps.of(order)


def _host_of(board: Board, rank: int) -> str:
    return next((state.plan.name for state in board.hosts.values() if rank in state.plan.ranks), "")


async def _give_tool(board: Board) -> bool:
    """Send our own py-spy to the hosts that have none, if they are machines like ours; tell if we did."""
    tool = own_tool()
    hosts, board.dumps.lacking = board.dumps.lacking, set()
    if tool is None:
        return False
    packed = zlib.compress(tool.read_bytes(), 1)
    for name in sorted(hosts)[:_MOST_GIVEN]:
        board.server.send(name, {"t": "tool", "name": TOOL, "machine": platform.machine()}, packed)
    return bool(hosts)


def own_tool() -> Path | None:
    """Return the py-spy that is installed beside our own Python, or on PATH."""
    beside = Path(sys.executable).parent / TOOL
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(TOOL)
    return None if found is None else Path(found)


def keep_aborted(board: Board, attempt: AttemptDir) -> list[Dump]:
    """Keep the stacks that ranks wrote when they were ended by SIGABRT for that; call it when all is over.

    Where each stood, and who waited for others, is told as event `stacks`.
    """
    found = []
    for rank in sorted(board.abort):
        host = next(state.plan for state in board.hosts.values() if rank in state.plan.ranks)
        text = _stacks_in(attempt.logs / f"{host.file_name}.rank{rank}.err")
        if text and where(text) is not None:
            facts = _text_of(attempt.dumps / f"{host.file_name}.rank{rank}.txt")
            file = keep(attempt, host, rank, facts + text)
            found.append(Dump(rank, host.name, "faulthandler", facts + text, file))
    if found:
        places = {dump.rank: place for dump in found if (place := where(dump.text)) is not None}
        board.event(
            "stacks",
            how="faulthandler",
            waiting=[rank for rank, place in places.items() if place.waiting],
            where={str(rank): str(place) for rank, place in places.items()},
            dumps=[dump.file for dump in found if dump.file],
        )
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _stacks_in(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
        return stacks_of(text) if "Fatal Python error: " in text else ""
    return ""
