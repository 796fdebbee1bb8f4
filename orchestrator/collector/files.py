"""The files of an attempt, and the bytes that are new in them.

Files are asked, not watched: inotify tells nothing of what another host writes to a shared disk. To ask
17,000 open files takes some 20 ms. Nothing of a file is kept in memory but where to go on: a line that is
not whole yet is read again.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHUNK = 1 << 16  # bytes; more would have malloc map and unmap memory at every read
_OF_RANK = re.compile(r"(?P<host>.+)\.rank(?P<rank>\d+)\.(?P<stream>out|err)\Z")
_OF_HOST = re.compile(r"(?P<host>.+)\.(?P<stream>samples)\Z")
_TICK = 2.0  # seconds; of clocks that filesystems have, FAT's is the coarsest
_SPARE = 256  # descriptors for everything else


class LogFile:
    """One growing file.

    Attributes:
        name: its name in the folder.
        host: name of the host it came from.
        rank: the rank that wrote it; None for the host's measurements.
        stream: `out`, `err` or `samples`.
        offset: bytes taken in, which end with the end of a line.
        skip: a line that is too long is being passed over.
        grew: epoch seconds at which it was last seen to have grown; 0.0 when never.
    """

    __slots__ = ("_handle", "_path", "_rest", "grew", "host", "name", "offset", "rank", "skip", "stream")

    def __init__(self, path: Path, host: str, rank: int | None, stream: str) -> None:
        self.name, self._path = path.name, os.fspath(path)
        self.host, self.rank, self.stream = host, rank, stream
        self.offset, self._rest, self.skip, self.grew = 0, 0, False, 0.0
        self._handle = -1

    def open(self) -> None:
        """Keep the file open between reads."""
        with contextlib.suppress(OSError):
            self._handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def new(self, now: float) -> bytes:
        """Return whole lines that have come since the last call, at most CHUNK bytes; b"" when none have.

        A line ends with a line feed or a carriage return. One that is longer than CHUNK is left out.
        """
        while len(data := self._read()) != self._rest:
            self.grew = now
            end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            if not end and len(data) < CHUNK:
                self._rest = len(data)
                return b""
            self.offset += end or len(data)
            self._rest = len(data) - end if end else 0
            whole = self._unskipped(data[:end])
            if whole:
                return whole
        return b""

    def _unskipped(self, data: bytes) -> bytes:
        if not data:
            self.skip = True
            return b""
        if self.skip:
            self.skip = False
            return data[_first_end(data) :]
        return data

    def _read(self) -> bytes:
        try:
            if self._handle >= 0:
                return os.pread(self._handle, CHUNK, self.offset)
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(handle, CHUNK, self.offset)
            finally:
                os.close(handle)
        except OSError:
            return b"\0" * self._rest  # as if nothing had come: a disk that fails now may answer later

    def last(self) -> bytes:
        """Return what stands behind the last line's end, when nothing more will come."""
        data = self._read()
        self.offset += len(data)
        self._rest = 0
        return b"" if self.skip else data

    def look_whether_cut(self) -> None:
        """Begin again with a file that somebody has emptied to free the disk."""
        with contextlib.suppress(OSError):
            there = os.fstat(self._handle) if self._handle >= 0 else Path(self._path).stat()
            if there.st_size < self.offset:
                self.offset, self._rest, self.skip = 0, 0, False


def _first_end(data: bytes) -> int:
    ends = [end for end in (data.find(b"\n"), data.find(b"\r")) if end >= 0]
    return min(ends) + 1 if ends else len(data)


class Folder:
    """The log folder of one attempt.

    Args:
        path: the folder; it need not exist yet.
        hosts: a host's name by its name in file names.
        stays: where to go on, by file name: offset and whether a long line is being skipped.
    """

    def __init__(self, path: Path, hosts: Mapping[str, str], stays: Mapping[str, tuple[int, bool]]) -> None:
        self._path, self._hosts, self._stays = path, hosts, stays
        self._seen = -1
        self._room = 0 if on_network(path) else _descriptors()
        self.files: dict[str, LogFile] = {}

    def scan(self) -> None:
        """Take up the files that have come, when the folder has changed."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._seen:
                return
            names = os.listdir(self._path)  # noqa: PTH208 - 17,000 paths would be made for nothing
        except OSError:
            return
        for name in sorted(set(names) - self.files.keys()):
            self._take_up(name)
        settled = time.time() - changed / 1e9 > _TICK  # before that, another file may come in the same tick
        self._seen = changed if settled else -1

    def _take_up(self, name: str) -> None:
        match = _OF_RANK.match(name) or _OF_HOST.match(name)
        if match is None or match["host"] not in self._hosts:
            return
        rank = match.groupdict().get("rank")
        file = LogFile(
            self._path / name,
            self._hosts[match["host"]],
            None if rank is None else int(rank),
            match["stream"],
        )
        file.offset, file.skip = self._stays.get(name, (0, False))
        if len(self.files) < self._room:
            file.open()
        self.files[name] = file

    def stays(self) -> dict[str, tuple[int, bool]]:
        """Return where to go on, as the constructor takes it; files that have given nothing are left out."""
        return {name: (file.offset, file.skip) for name, file in self.files.items() if file.offset}


def _descriptors() -> int:
    """Return how many files may be kept open, after asking for as many as there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(0, soft - _SPARE) if soft != resource.RLIM_INFINITY else 1 << 20


def on_network(path: Path) -> bool:
    """Tell whether a folder is on NFS, where only opening a file asks the server for its size."""
    best = ("", "")
    for place, kind in _mounts():
        inside = place == "/" or path.is_relative_to(place)
        best = max(best, (place, kind)) if inside else best
    return best[1].startswith("nfs")


def _mounts() -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a file of the kernel's
        for line in file:
            _, place, kind, *_ = line.split(" ")
            yield place, kind
