"""The stacks that agents have sent of their ranks, kept in the attempt's `dumps`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import write_text

if TYPE_CHECKING:
    from orchestrator.plan import PlannedHost
    from orchestrator.rundir import AttemptDir


@dataclass(frozen=True, slots=True)
class Dump:
    """The stacks of one rank.

    Attributes:
        rank: whose.
        host: the host's name.
        how: by what: "py-spy", "faulthandler"; "" when there are none.
        text: the stacks, after lines with `#` that the kernel tells of the process.
        file: its name in the attempt's `dumps`; "" where it could not be written.
        why: why there are no stacks.
        flight: its flight recorder has written its file anew.
    """

    rank: int
    host: str
    how: str
    text: str
    file: str
    why: str = ""
    flight: bool = False


class DumpBox:
    """The answers to the orders of one attempt, as they come."""

    def __init__(self, attempt: AttemptDir) -> None:
        self._attempt = attempt
        self._orders = 0
        self._answers: dict[tuple[Any, int], Dump] = {}
        self.lacking: set[str] = set()

    def begin(self) -> str:
        """Return the id of a new order; a supervisor that took over never repeats one of another's."""
        self._orders += 1
        return f"{os.getpid()}.{self._orders}"

    def take(self, host: PlannedHost, message: dict[str, Any], payload: bytes) -> None:
        """Keep an agent's answer."""
        rank, how, text = int(message["rank"]), str(message["how"]), payload.decode("utf-8", "replace")
        if rank not in host.ranks:
            return
        file = keep(self._attempt, host, rank, text)
        more = str(message["why"]), bool(message.get("flight"))
        self._answers[message["id"], rank] = Dump(rank, host.name, how, text, file, *more)
        if message.get("lacks"):
            self.lacking.add(host.name)

    def of(self, order: str) -> dict[int, Dump]:
        """Return the answers to an order so far, by rank."""
        return {rank: dump for (told, rank), dump in self._answers.items() if told == order}


def keep(attempt: AttemptDir, host: PlannedHost, rank: int, text: str) -> str:
    """Write a rank's stacks down; return the file's name, "" when there is no room."""
    name = f"{host.file_name}.rank{rank}.txt"
    try:
        attempt.dumps.mkdir(exist_ok=True)
        write_text(attempt.dumps / name, text)
    except OSError:
        return ""
    return name
