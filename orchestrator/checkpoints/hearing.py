"""What a program says that tells of its work as lines of JSON, and its end with all of its workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator


def last_answer(process: subprocess.Popen[str], on_progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Pass progress on until the program closes its output; return the last answer that is none.

    Args:
        process: the program, with a pipe for its output.
        on_progress: is called with the phase and how much of it is done, 0 to 1.
    """
    last: dict[str, Any] = {}
    for answer in _answers(process):
        if "phase" in answer:
            on_progress(str(answer["phase"]), answer["done"] / max(1, answer["of"]))
        else:
            last = answer
    return last


def _answers(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                yield answer


def end_group_after(pid: int) -> None:
    """Wait for a process, not reaping it, and end its workers: they hold the pipe open that we read."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.killpg(pid, signal.SIGKILL)
