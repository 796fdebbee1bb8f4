"""Have what ranks print seen on other hosts at once, where the shared disk is one that keeps it back.

NFS and CIFS clients of Linux send written pages when the file is closed, or when they are old: up to 30 s
(vm.dirty_expire_centisecs), and ranks never close their logs. fsync(2) of any process sends them. Lustre,
GPFS, BeeGFS and local disks need nothing.
"""

from __future__ import annotations

import contextlib
import os
import re

from .host_facts import read_text

_KEEP_BACK = ("nfs", "nfs4", "cifs", "smb3", "9p")
_ESCAPED = re.compile(r"\\([0-7]{3})")


class Flusher:
    """Sends what was written to some files since the last time.

    Args:
        folder: where the files are.
        mounts: /proc/self/mountinfo.
    """

    def __init__(self, folder: str, mounts: str | None = None) -> None:
        mounts = read_text("/proc/self/mountinfo") if mounts is None else mounts
        self.needed = kind_of_disk(os.path.realpath(folder), mounts) in _KEEP_BACK
        self._folder = folder
        self._sent: dict[str, int] = {}

    def flush(self, sizes: dict[str, int]) -> list[str]:
        """Send the files that have grown; return their names.

        Args:
            sizes: the files' sizes by name.
        """
        grown = [name for name, size in sizes.items() if self.needed and size != self._sent.get(name, 0)]
        for name in grown:
            self._sent[name] = sizes[name]
            with contextlib.suppress(OSError):
                handle = os.open(os.path.join(self._folder, name), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        return grown


def kind_of_disk(path: str, mounts: str) -> str:
    """Return the type of the file system that a path is on; "" where it cannot be told.

    Args:
        path: absolute, without links.
        mounts: the text of /proc/PID/mountinfo (proc(5)), in which octal numbers stand for blanks.
    """
    found, longest = "", -1
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 10 or "-" not in words:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), words[4]).rstrip("/")
        if (path == point or path.startswith(point + "/")) and len(point) >= longest:
            found, longest = words[words.index("-") + 1], len(point)
    return found
