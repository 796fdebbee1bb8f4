"""When which log file was how long: `HOST.times`. Raw files stay as they are, and their lines have times.

A line is `EPOCH.mmm NAME SIZE`, in this host's clock; NAME is `log`, `K.out` or `K.err` of rank K. SIZE is
that of the file at the submit side. What lies between two sizes came between their times.
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, Iterable

LOOK_SECONDS = 0.25
_CLOSE_LINES = (
    2000  # of a file, before its lines come less often: a bar that is redrawn for weeks fills a disk
)
_SPARSE_SECONDS = 1.0


class LineFile:
    """A file that lines are added to; a full disk costs lines and nothing else."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle: int | None = None
        self._torn = False

    def add(self, lines: bytes) -> bool:
        """Add whole lines at the end; tell whether all of it was written."""
        try:
            if self._handle is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._handle = os.open(self._path, flags, 0o644)
            data = (
                b"\n" + lines if self._torn else lines
            )  # half a line is a line of its own, which nobody can read
            written = os.write(self._handle, data)
        except OSError:
            return False
        self._torn = written < len(data) and (written > 0 or self._torn)
        return written == len(data)

    def close(self) -> None:
        """Let go of the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Times:
    """The index of this host's log files.

    Args:
        path: the file it is written to.
        sizes: returns the sizes of the host's log files by short name (see short_names).
    """

    def __init__(self, path: str, sizes: Callable[[], dict[str, int]]) -> None:
        self._file = LineFile(path)
        self._sizes = sizes
        self._noted: dict[str, tuple[int, float, int]] = {}  # size, when, lines so far

    def look(self, now: float, *, last: bool = False) -> None:
        """Note every file that has changed; `last`: however short ago it was noted.

        Args:
            now: epoch seconds of this host.
            last: nobody will look again.
        """
        lines = ""
        noted = {}
        for name, size in self._sizes().items():
            before, when, count = self._noted.get(name, (0, 0.0, 0))
            gap = _SPARSE_SECONDS if count > _CLOSE_LINES else 0.0
            if size == before or (0 <= now - when < gap and not last):
                continue
            noted[name] = size, now, count + 1
            lines += f"{now:.3f} {name} {size}\n"
        if lines and self._file.add(lines.encode()):
            self._noted.update(noted)


def short_names(sizes: Iterable[tuple[str, int]], host: str) -> dict[str, int]:
    """Return the sizes by `log`, `K.out`, `K.err`; other files of the host have no line of the index."""
    found = {}
    for name, size in sizes:
        kind = name[len(host) + 1 :]
        if kind == "log" or kind.endswith((".out", ".err")):
            found[kind[4:] if kind.startswith("rank") else kind] = size
    return found


def shared_sizes(folder: str, host: str, ranks: Iterable[int]) -> dict[str, int]:
    """Return the sizes of a host's files where they are the submit side's own, by short name.

    Each is asked for by name: on a shared disk the folder holds those of every host.
    """
    shorts = ["log", *(f"{rank}.{end}" for rank in ranks for end in ("out", "err"))]
    found = {}
    for short in shorts:
        with contextlib.suppress(OSError):
            found[short] = os.stat(os.path.join(folder, long_name(host, short))).st_size
    return found


def long_name(host: str, short: str) -> str:
    """Return the name of a host's log file."""
    return f"{host}.log" if short == "log" else f"{host}.rank{short}"
