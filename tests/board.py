"""What watches a run needs of the supervisor's board, and nothing else of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.states import State


class Board:
    """Remembers how it was told to end the run."""

    def __init__(self) -> None:
        self.ending: Any = None
        self.ended: list[tuple[State, str]] = []
        self.abort: set[int] = set()

    def end(self, state: State, reason: str) -> None:
        self.ended.append((state, reason))
