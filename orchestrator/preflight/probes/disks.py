"""Disks: room, whether the run directory is the submit side's own, and how fast an NVMe folder is.

Files made here have no name by the time anything is written into them, so none stays, whoever is killed.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from typing import Any

_BLOCK = 4 << 20  # bytes
_NVME_BYTES = 256 << 20
_NVME_SECONDS = 3.0  # for writing, and again for reading


def shared(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Read the word that the submit side wrote, and leave one for it to find."""
    run_dir = config["run_dir"]
    answer: dict[str, Any] = {"sees": config["shared"], "folder": run_dir}
    if not config["shared"]:
        return answer
    with open(os.path.join(run_dir, "check.token"), encoding="ascii") as file:
        answer["token"] = file.read()
    name = os.path.join(run_dir, "seen", host["file_name"])
    with open(name, "w", encoding="ascii") as file:
        file.write(answer["token"][::-1])
        file.flush()
        os.fsync(file.fileno())
    return answer


def disks(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return for each folder: the part of it that exists, free bytes and files, and whether we may write."""
    del host
    return {"folders": {what: _folder(path) for what, path in config["check"]["folders"].items()}}


def _folder(path: str) -> dict[str, Any]:
    existing = _existing(path)
    room = os.statvfs(existing)
    return {
        "path": path,
        "existing": existing,
        "free": room.f_bavail * room.f_frsize,
        "files": room.f_favail if room.f_files else -1,  # file systems without a table of inodes say 0
        "writable": _writable(existing),
        "device": os.stat(existing).st_dev,
    }


def _existing(path: str) -> str:
    """Return the part of an absolute path that is a folder here."""
    while not os.path.isdir(path) and path not in ("/", ""):
        path = os.path.dirname(path)
    return path or "/"


def _writable(folder: str) -> str:
    """Return "" if a file can be made there, else why not."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        return str(error.strerror)
    return ""


def nvme(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return writing and reading speed (bytes/s) of each folder that is offloaded to."""
    del host
    return {"folders": {path: _measure(path) for path in config["check"]["nvme"]}}


def _measure(path: str) -> dict[str, Any]:
    """Write and read a file of at most 256 MiB past the page cache, each for at most 3 s."""
    existing = _existing(path)
    try:
        room = os.statvfs(existing)
        size = min(_NVME_BYTES, room.f_bavail * room.f_frsize // 4) // _BLOCK * _BLOCK
        handle, name = tempfile.mkstemp(dir=existing)
        direct = _reopen_direct(name)
        os.unlink(name)
    except OSError as error:
        return {"failure": str(error.strerror)}
    try:
        speeds = _speeds(handle if direct is None else direct, size)
        return dict(speeds, direct=direct is not None, existing=existing)
    except OSError as error:
        return {"failure": str(error.strerror)}
    finally:
        os.close(handle)
        if direct is not None:
            os.close(direct)


def _reopen_direct(name: str) -> int | None:
    """Open the file again past the page cache; None where the file system cannot (tmpfs before Linux 6.6)."""
    try:
        return os.open(name, os.O_RDWR | os.O_DIRECT)
    except OSError:
        return None


def _speeds(handle: int, size: int) -> dict[str, Any]:
    block = mmap.mmap(-1, _BLOCK)  # page-aligned, as O_DIRECT needs it
    block.write(os.urandom(1 << 16) * (_BLOCK >> 16))  # a disk that compresses must not look faster
    began = time.monotonic()
    written = 0
    while written < size and time.monotonic() - began < _NVME_SECONDS:
        written += os.pwritev(handle, [block], written)
    os.fsync(handle)
    write_seconds = time.monotonic() - began
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    began = time.monotonic()
    read = 0
    while read < written and time.monotonic() - began < _NVME_SECONDS:
        count = os.preadv(handle, [block], read)
        if not count:
            break
        read += count
    read_seconds = time.monotonic() - began
    return {
        "write": written / max(write_seconds, 1e-9),
        "read": read / max(read_seconds, 1e-9),
        "bytes": written,
    }
