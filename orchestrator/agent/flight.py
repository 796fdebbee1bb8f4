"""Ask c10d's flight recorder in a rank to write down which collectives the rank has joined.

ProcessGroupNCCL makes a pipe for that, and looks into it once a second (torch 2.4 to 2.13: DumpPipe and the
heartbeat thread of ProcessGroupNCCL.cpp). Gloo records as well (torch 2.13), but nobody outside of the rank
can ask it for the records.
"""

from __future__ import annotations

import contextlib
import glob
import os
import time

VARIABLE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
_SECONDS = 12.0  # a look a second; the first time, the symbols take 4 to 5 s (torch 2.11 on 4 H200)
_STABLE = 0.3  # seconds without a change
_STOP = b"."  # the last byte of a pickle


def stem(folder: str, rank: int) -> str:
    """Return what the name of a rank's pipe begins with; c10d adds its own number of the rank and `.pipe`."""
    return os.path.join(folder, f"fr{rank}.")


class Recorder:
    """The flight recorder of one rank of this host.

    Args:
        folder: where the pipe is.
        files: what the names of the files begin with that it writes; c10d adds its number of the rank.
        rank: whose.
    """

    def __init__(self, folder: str, files: str, rank: int) -> None:
        self._pipes = glob.escape(stem(folder, rank)) + "*.pipe"
        self._files = glob.escape(files) + "*"
        self._before: dict[str, tuple[int, int]] = {}

    def ask(self) -> bool:
        """Ask for the records; tell whether there is anybody who may hear it."""
        self._before = self._state()
        asked = [pipe for pipe in glob.glob(self._pipes) if _poke(pipe)]
        return bool(asked)

    def wait(self) -> bool:
        """Wait until the records have been written; tell whether they were. A rank may be unable to."""
        deadline, seen, since = time.monotonic() + _SECONDS, self._before, time.monotonic()
        while time.monotonic() < deadline:
            now = self._state()
            if now != seen:
                seen, since = now, time.monotonic()
            elif now != self._before and time.monotonic() - since >= _STABLE and all(map(_whole, now)):
                return True
            time.sleep(0.05)
        return False

    def _state(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in glob.glob(self._files):
            with contextlib.suppress(OSError):
                told = os.stat(path)
                found[path] = (told.st_mtime_ns, told.st_size)
        return found


def _poke(pipe: str) -> bool:
    try:
        handle = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # fails where nobody has it open
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.write(handle, b"1\n")
    os.close(handle)
    return True


def _whole(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == _STOP
    except OSError:
        return False
