"""How an attempt is ended, and what a log said last."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.agent.last_words import last_line

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.states import State

_TAIL_BYTES = 16384


@dataclass(frozen=True)
class Ending:
    """The first decision to end an attempt: how, and why in words."""

    state: State
    reason: str


def tail_of(log: Path) -> str:
    """Return the line of a host's log that most likely says why its launcher ended; "" for none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return last_line("\n".join(line for line in text.splitlines() if not line.startswith("[orchestrate ")))
