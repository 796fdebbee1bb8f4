"""Builds one of DeepSpeed's operators by loading it, as a run would; two checks do not at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List

_LOAD = (
    "import sys; from deepspeed.ops.op_builder.all_ops import ALL_OPS; op = ALL_OPS.get(sys.argv[1]); "
    "op or sys.exit(f'DeepSpeed has no operator {sys.argv[1]} for this device'); op.load(verbose=True)"
)
_TELLING = re.compile(r"error|fatal|not found|unable|no such|mismatch|exception", re.IGNORECASE)
_LINES = 6


def build(name: str, folder: str, seconds: float) -> Dict[str, Any]:
    """Build an operator; return `ok`, `seconds`, and the last `words` of the compiler where it failed.

    Where another check builds in the same folder, it is waited for; torch's own lock does the rest.
    """
    began = time.monotonic()
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".orchestrate-build"), "a", encoding="ascii") as lock:
        with contextlib.suppress(OSError):  # a disk without locks: torch's lock file is all there is
            fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = _load_freely(name, os.path.join(folder, name, "lock"), seconds)
    words = [] if code == 0 else telling(output) or [f"it ended with {code}"]
    if code is None:
        words = [f"it did not end in {seconds:g} s", *words[-2:]]
    return {"ok": code == 0, "seconds": round(time.monotonic() - began, 1), "words": words}


def _load_freely(name: str, lock: str, seconds: float) -> Any:
    """Load the operator; a lock that our process holds when it has to be killed is taken away.

    One that was there before is somebody else's, or nobody's any more: then torch would wait for ever.
    """
    if os.path.exists(lock):
        return 1, f"error: {lock} is there: somebody builds it, or was killed while building it"
    return _load(name, seconds, lock)


def _holds(pid: int, path: str) -> bool:
    """Return whether a process has a file open; torch's FileBaton keeps its lock open while it builds."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        return any(
            os.path.realpath(f"{folder}/{number}") == os.path.realpath(path) for number in os.listdir(folder)
        )
    return False


def _load(name: str, seconds: float, lock: str) -> Any:
    """Return (exit code or None, output) of a process that loads the operator."""
    with tempfile.TemporaryFile() as output:
        words = [sys.executable, "-c", _LOAD, name]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
            ours = _holds(process.pid, lock)
            os.killpg(process.pid, 9)  # ninja and the compilers too
            process.wait()
            if ours:
                with contextlib.suppress(OSError):
                    os.remove(lock)
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def telling(output: str) -> List[str]:
    """Return the last lines that say what went wrong: the compiler's errors before python's traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _TELLING.search(line) and not line.startswith(("[", "File "))]
    compiler = [line for line in errors if re.search(r": (fatal )?error[: ]|command not found", line)]
    return [line[:300] for line in (compiler[:_LINES] or errors[-_LINES:] or lines[-_LINES:])]
