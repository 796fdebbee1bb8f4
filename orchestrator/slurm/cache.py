"""What was last heard from Slurm, in a file that all of a user's processes share, one a cluster."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.registry import state_dir
from orchestrator.rundir import read_json, write_text
from orchestrator.slurm.words import JobInfo, JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

_VERSION = 1
_LOCK_SECONDS = 25.0  # longer than the two commands that the holder of the lock may be waiting for
_MAX_HISTORY = 5000  # ended jobs that are remembered
_CONF_FILES = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf")  # the latter: slurmd without a file
_CLUSTER_LINE = re.compile(
    r"^\s*(ClusterName|SlurmctldHost|ControlMachine|SlurmctldPort)\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE
)


@dataclass(slots=True)
class Past:
    """What accounting said of one job: when it was asked (epoch seconds), and the answer if there was one."""

    asked: float
    info: JobInfo | None


@dataclass(slots=True)
class Memory:
    """What was heard.

    Attributes:
        tried: when squeue was last run, epoch seconds.
        asked: when it last answered; 0 for never.
        queue: what it printed then.
        error: why the last run failed; empty if it did not.
        past: what accounting said of jobs that squeue does not know (any more).
        past_error: why accounting did not answer the last time.
        past_off_until: when accounting may be asked again, epoch seconds.
    """

    tried: float = 0.0
    asked: float = 0.0
    queue: str = ""
    error: str = ""
    past: dict[str, Past] = field(default_factory=dict)
    past_error: str = ""
    past_off_until: float = 0.0


class Cache:
    """The file of this user and this cluster.

    A folder that cannot be written to costs only the sharing: everybody then asks for himself.
    """

    def __init__(self) -> None:
        self.path = state_dir().parent / "slurm" / f"{cluster_key()}.json"

    def read(self) -> Memory:
        """Return what was heard last; nothing when there is no file, or none of this version."""
        kept = read_json(self.path)
        if kept is None or kept.pop("version", None) != _VERSION:
            return Memory()
        try:
            past = {job: _past(**entry) for job, entry in kept.pop("past").items()}
            return Memory(**kept, past=past)
        except (TypeError, ValueError, KeyError, AttributeError):
            return Memory()

    def write(self, memory: Memory) -> None:
        """Keep what was heard, the latest answers of accounting only."""
        latest = sorted(memory.past.items(), key=lambda item: item[1].asked)[-_MAX_HISTORY:]
        kept = asdict(memory) | {"past": {job: asdict(past) for job, past in latest}, "version": _VERSION}
        with contextlib.suppress(OSError):
            write_text(self.path, json.dumps(kept), mode=0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Keep the user's other processes from asking; yields False if one of them is asking for too long."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            yield True
            return
        try:
            yield _lock(handle)
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            return True  # a disk without locks
        else:
            return True
    return False


def _past(asked: float, info: dict[str, Any] | None) -> Past:
    return Past(asked, None if info is None else JobInfo(**{**info, "state": JobState(info["state"])}))


def cluster_key() -> str:
    """Return a file name that tells this cluster, as Slurm's commands see it, from every other.

    A home folder is often shared by several clusters that all keep their slurm.conf in the same place, so
    the place alone does not do; where the file says nothing the host stands for its cluster.
    """
    files = (os.environ.get("SLURM_CONF"), *_CONF_FILES)
    text = next((text for file in files if file and (text := _read(Path(file)))), "")
    lines = _CLUSTER_LINE.findall(text) or [("Host", socket.gethostname())]
    about = [*lines, os.environ.get("SLURM_CLUSTERS", ""), os.getuid()]
    name = next((value for key, value in lines if key.lower() == "clustername"), "cluster")
    digest = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:64]}-{digest}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
