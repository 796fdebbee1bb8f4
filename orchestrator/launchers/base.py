"""What every launcher does, and what the ssh ones share."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orchestrator.plan import PlannedHost
    from orchestrator.rundir import AttemptDir

NO_BUNDLE = 97
"""Exit code of the start command on a host that does not see the run directory."""

NODE_SCRIPT_FAILED = 98
"""Exit code of node.sh when it found something wrong; its last words say what."""

SENTINEL = "@orchestrate "
"""Begins a line that node.sh says to the user; everything else on the way is noise or a tool's own word."""

HOST_LINE = "@host "
"""Begins the line by which a task of srun says which host it is on: srun itself only numbers them."""

_HOST_KEY_FIX = (
    "connect once by hand, or set cluster.ssh.accept_new_host_keys: true for hosts never seen before"
)

OnExit = Callable[[str, int, str], None]
"""Called with a host's alias, the exit code of its command (minus a signal number), and its last words."""


class Launcher(Protocol):
    """Starts a command on every host and tells when it has ended."""

    async def open(self, port: int) -> None:
        """Get ready; agents that cannot reach our control `port` directly may get it forwarded."""

    async def start(self, hosts: Sequence[PlannedHost]) -> None:
        """Begin to start the command on these hosts; returns without waiting for it."""

    async def push(self, host: PlannedHost, archive: bytes) -> str:
        """Unpack a tar archive into the run directory of a host that does not share it; "" or what failed."""

    async def close(self) -> None:
        """End what is still open of the launcher itself; idempotent."""


class LastWords:
    """The last lines of every host's output, for errors, and all of it in the launcher's log."""

    def __init__(self, attempt: AttemptDir) -> None:
        self._lines: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=12))
        self._log = attempt.launcher_log.open("a", encoding="utf-8", buffering=1)

    def add(self, alias: str, line: str) -> None:
        """Take one line of a host's output ("" for the launcher's own)."""
        with contextlib.suppress(OSError, ValueError):
            self._log.write(f"{alias}: {line}\n" if alias else f"{line}\n")
        self._lines[alias].append(line)

    def of(self, alias: str) -> str:
        """Return what a host said last: what node.sh says to the user, else the tail of everything."""
        lines = list(self._lines.get(alias, ()))
        if any("Host key verification failed" in line for line in lines):
            lines.append(_HOST_KEY_FIX)
        return self.told(alias) or "; ".join(line for line in lines[-3:] if line.strip())

    def told(self, alias: str) -> str:
        """Return what node.sh said last to the user on a host, or ""."""
        lines = (line for line in reversed(self._lines.get(alias, ())) if line.startswith(SENTINEL))
        return next(lines, "").removeprefix(SENTINEL)

    def close(self) -> None:
        """Close the log."""
        self._log.close()


async def read_lines(stream: asyncio.StreamReader | None, each: Callable[[str], None]) -> None:
    """Call `each` with every line of a stream until it ends, however long or broken the lines are."""
    buffer = b""
    while stream is not None and (data := await stream.read(1 << 16)):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            each(line.decode("utf-8", "replace").rstrip("\r"))
        buffer = buffer[-(1 << 16) :]
    if buffer:
        each(buffer.decode("utf-8", "replace"))


async def end_process(process: asyncio.subprocess.Process, seconds: float = 3) -> None:
    """SIGTERM a process that leads its own session, SIGKILL its group after `seconds`."""
    if process.returncode is not None:
        return
    # Not process.terminate(): that polls first, and so takes the exit code of a process that has just ended
    # away from asyncio's watcher, which then makes it 255 and prints a warning (Python 3.11 to 3.13).
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
