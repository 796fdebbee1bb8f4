"""Wait for processes to have come where they stay."""

from __future__ import annotations

import time
from pathlib import Path


def await_sleep(*pids: int, program: str = "sleep") -> None:
    """Wait until processes run a program, and sleep in it.

    Popen returns, and a shell has said its last word, before the program has begun: in between a process has
    no environment that can be read (execve(2)).

    Args:
        pids: processes that live.
        program: what their program's name begins with.
    """
    deadline = time.monotonic() + 120
    for pid in pids:
        while not _sleeps(pid, program):
            assert time.monotonic() < deadline, f"{pid} does not sleep in {program}"
            time.sleep(0.01)


def _sleeps(pid: int, program: str) -> bool:
    # PID (NAME) STATE ...; the name may hold parentheses (proc(5))
    head, _, rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")
    return head.partition("(")[2].startswith(program) and rest.startswith("S")
