"""Builds one of DeepSpeed's operators by loading it, as a run would; two checks do not at the same time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Tuple

_LOAD = (
    "import sys; from deepspeed.ops.op_builder.all_ops import ALL_OPS; op = ALL_OPS.get(sys.argv[1]); "
    "op or sys.exit(f'DeepSpeed has no operator {sys.argv[1]} for this device'); op.load(verbose=True)"
)
_TELLING = re.compile(r"error|fatal|not found|unable|no such|mismatch|exception", re.IGNORECASE)
_LINES = 6
_TICK = 0.2  # seconds
_STOP_SECONDS = 5.0  # for a process to heed SIGSTOP, which one that hangs in the kernel does not


def build(name: str, folder: str, seconds: float) -> Dict[str, Any]:
    """Build an operator; return `ok`, `seconds`, and the last `words` of the compiler where it failed.

    Where another check builds in the same folder, it is waited for; torch's own lock does the rest.
    """
    began = time.monotonic()
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, ".orchestrate-build"), "a", encoding="ascii") as lock:
        with contextlib.suppress(OSError):  # a disk without locks: torch's lock file is all there is
            fcntl.flock(lock, fcntl.LOCK_EX)
        code, words = _load_freely(name, os.path.join(folder, name, "lock"), seconds)
    return {"ok": code == 0, "seconds": round(time.monotonic() - began, 1), "words": words}


def _load_freely(name: str, lock: str, seconds: float) -> Tuple[int | None, List[str]]:
    """Load the operator; return (exit code or None, what is to be said of it).

    A lock that was there before is somebody else's, or nobody's any more: then torch would wait for ever.
    """
    if os.path.exists(lock):
        return 1, [f"error: {lock} is there: somebody builds it, or was killed while building it"]
    code, output = _load(name, seconds, lock)
    if code == 0:
        return code, []
    words = telling(output)
    words = words or [f"it ended with {code}"] if code is not None else [f"it did not end in {seconds:.0f} s"]
    if os.path.exists(lock):
        words.append(f"{lock} is there and not ours: remove it if nobody builds the operator")
    return code, words


def _load(name: str, seconds: float, lock: str) -> Tuple[int | None, str]:
    """Return (exit code or None, output) of a process that loads the operator; nothing of it is left."""
    with tempfile.TemporaryFile() as output:
        words = [sys.executable, "-c", _LOAD, name]
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        code = _watched(process, seconds, lock)
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def _watched(process: Any, seconds: float, lock: str) -> int | None:
    """Wait for a builder; end it after `seconds` or when we are told to end, and take its lock away.

    A builder that dies (of too little memory, say) leaves its lock as well, so it is looked at all the while.
    """
    deadline = time.monotonic() + seconds
    held: Any = None
    code: int | None = None
    try:
        while code is None and time.monotonic() < deadline:
            held = _held(process.pid, lock) or held
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(_TICK)
    finally:
        if code is None:
            _stop(process.pid)  # or it might take the lock after the last look
            held = _held(process.pid, lock) or held
            _end_session(process.pid)
            process.wait()
        with contextlib.suppress(OSError):
            if held and _identity(os.stat(lock)) == held:
                os.remove(lock)
    return code


def _stop(pid: int) -> None:
    """Stop a process; return when it does nothing any more."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_SECONDS
        while _stat(pid)[0] not in (b"T", b"Z", b"X") and time.monotonic() < deadline:
            time.sleep(0.01)


def _stat(pid: int) -> List[bytes]:
    """Return what proc(5) says in `stat` of a process from its state on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _end_session(leader: int) -> None:
    """Kill every process of a session until none is left.

    Ninja (1.13) gives each compiler a process group of its own, so that no signal to a group reaches all.
    """
    while sum(_killed(int(name), leader) for name in os.listdir("/proc") if name.isdigit()):
        time.sleep(0.01)  # one of them may have started another one meanwhile


def _killed(pid: int, leader: int) -> bool:
    """Kill a process that is of the session and no zombie; return whether it was there to be killed."""
    with contextlib.suppress(OSError, ValueError):
        state, _parent, _group, session = _stat(pid)[:4]
        if int(session) == leader and state not in (b"Z", b"X"):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _held(pid: int, lock: str) -> Any:
    """Return the identity of the lock if a process has it open, as torch's FileBaton has while it builds.

    A process that waits for somebody else's lock does not open it.
    """
    with contextlib.suppress(OSError):
        there = os.stat(lock)
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), there):
                    return _identity(there)
    return None


def _identity(info: os.stat_result) -> Tuple[int, int]:
    """Return what tells a lock from a later one of the same name, which may get the same inode."""
    return info.st_ino, info.st_mtime_ns


def telling(output: str) -> List[str]:
    """Return the last lines that say what went wrong: the compiler's errors before python's traceback."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _TELLING.search(line) and not line.startswith(("[", "File "))]
    compiler = [line for line in errors if re.search(r": (fatal )?error[: ]|command not found", line)]
    return [line[:300] for line in (compiler[:_LINES] or errors[-_LINES:] or lines[-_LINES:])]
