"""Long-running programs of a bed, each noted in a file, so that another process can find and end them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.testbed import processes
from tests.testbed.host import CLEAN
from tests.testbed.requirements import TestbedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(kw_only=True)
class Services:
    """The programs whose notes lie in one folder.

    Attributes:
        folder: holds, per program, `NAME` (its pid and start time: the two name one process) and `NAME.out`.
        children: what this Python process started, to be reaped.
    """

    folder: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        """Start a program that stays in the foreground; what it prints goes to `NAME.out`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.out").open("ab") as out:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=CLEAN | dict(env or {}),
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal of a test run is not for a daemon
            )
        self.children.append(child)
        (self.folder / name).write_text(f"{child.pid} {processes.start_time(child.pid)}\n")

    def pid(self, name: str) -> int:
        """Return the pid of a program that runs; 0 when it does not."""
        with contextlib.suppress(OSError, ValueError):
            pid, started = (self.folder / name).read_text().split()
            if str(processes.start_time(int(pid))) == started:
                return int(pid)
        return 0

    def stop(self, name: str, *, within: float = 10.0) -> None:
        """Ask a program to end (SIGTERM), and kill it, with what it started, after `within` seconds."""
        if not (pid := self.pid(name)):
            return
        helpers = processes.descendants(pid)
        with contextlib.suppress(TimeoutError):
            processes.end([pid], within, signal.SIGTERM)
        processes.end([pid, *helpers])
        self.forget(name)

    def forget(self, name: str) -> None:
        """Remove the note of a program that has ended."""
        (self.folder / name).unlink(missing_ok=True)
        self.reap()

    def kill(self) -> None:
        """Kill all programs, with what they started."""
        pids = [pid for name in self.names() if (pid := self.pid(name))]
        processes.end([*pids, *(helper for pid in pids for helper in processes.descendants(pid))])
        self.reap()

    def names(self) -> Iterator[str]:
        """Yield the names of all programs that were started and not stopped."""
        notes = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        yield from (path.name for path in notes if path.suffix != ".out")

    def reap(self) -> None:
        """Take the exit status of what has ended."""
        self.children = [child for child in self.children if child.poll() is None]

    def await_that(self, name: str, ready: Callable[[], bool], within: float = 300.0) -> None:
        """Wait until a program is ready; TestbedError with its last words when it ends or is too slow."""
        deadline = time.monotonic() + within
        while not ready():
            self.reap()
            if not self.pid(name) or time.monotonic() > deadline:
                said = (self.folder / f"{name}.out").read_text(errors="replace")
                raise TestbedError(f"{name} {'is not ready' if self.pid(name) else 'ended'}: {said[-2000:]}")
            time.sleep(0.01)
