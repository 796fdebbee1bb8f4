"""What a conversion into a universal checkpoint takes: bytes on disk, bytes of memory, processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import listing

if TYPE_CHECKING:
    from orchestrator.checkpoints.tag import Tag

_FRAGMENT = 1.05  # what torch.save adds to the pieces, which for real models are far above its 1.2 kB a file
_LEAST_DISK = 64 << 20  # bytes; for those of a tiny model they are not
_PROCESS = 1 << 30  # bytes: Python with torch and DeepSpeed
_MOST_WORKERS = 16  # at a time; more of them wait for the disk
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a conversion takes, in bytes.

    Attributes:
        disk: while it runs.
        kept: on disk, afterwards.
        memory: the least; each process more than the first takes `shard` more.
        shard: of the optimizer, the largest.
    """

    disk: int
    kept: int
    memory: int
    shard: int


def needs(tag: Tag) -> Needs:
    """Return what converting a tag takes.

    DeepSpeed 0.19.8 writes every optimizer state twice: in pieces by rank, and merged by parameter. The
    pieces go when all is merged. So does, at stage 3, a shard that it keeps beside the merged ones. A process
    loads one shard as a whole.
    """
    files = listing(tag.path).files
    shards = [size for name, (size, _) in files.items() if name.endswith("optim_states.pt")]
    states, model = sum(shards), sum(size for size, _ in files.values()) - sum(shards)
    largest = max(shards, default=0)
    kept = int(_FRAGMENT * states) + model
    disk = max(2 * int(_FRAGMENT * states) + largest, kept) + _LEAST_DISK
    return Needs(disk, kept, _PROCESS + largest, largest)


def free_memory() -> int | None:
    """Return the bytes that processes of ours may still take; None where the system does not tell.

    That is what Linux calls available, and not more than a cgroup (version 2) leaves: a Slurm job and a
    container are killed for more.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        available = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    left = _cgroup_left()
    return available if left is None else min(available, left)


def _cgroup_left() -> int | None:
    """Return what the nearest limit above this process leaves; pages of files in it can be let go."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        place = next(line.removeprefix("0::/") for line in own if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    folders = [_CGROUP / place, *(_CGROUP / place).parents]
    found = [_left_in(folder) for folder in folders if folder.is_relative_to(_CGROUP)]
    return min((left for left in found if left is not None), default=None)


def _left_in(folder: Path) -> int | None:
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(
            line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        )
        return max(0, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def most_workers() -> int:
    """Return how many processes are worth it on the CPUs that this process may use."""
    return max(1, min(len(os.sched_getaffinity(0)), _MOST_WORKERS))
