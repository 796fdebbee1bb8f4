"""What is known about one checkpoint, and how a folder is read for it."""

from __future__ import annotations

import contextlib
import math
import os
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# global_step120, step-120, checkpoint-120, checkpoint_120, epoch_3_step_120, iter_0000120, plain 120
_STEP = re.compile(
    r"(?:^|[^a-z])(?:global[_-]?)?(?:step|checkpoint|ckpt|iter)[_-]?(\d+)(?!\d)|^(\d+)$", re.IGNORECASE
)
_TEMPORARY = re.compile(
    r"^(?:tmp|\.?temp)[-_.]|^tmp$|\.(?:tmp|temp|part|partial|incomplete)(?:[.-]\w+)?$|^\..+\.\w{6}$|~$"
)
_PRUNED = re.compile(r"\..+\.pruned\.[0-9a-f]{6}")
_MAKING = re.compile(r"\..+\.making\.\w+")
_ASIDE = re.compile(r"(.+)_of_\d+_ranks(?:_\d+)?")
SUFFIX = "_universal"
"""What the universal form of a tag adds to its name."""
MARK = "reshaped.json"
"""In a universal checkpoint that we made: of which tag, by how many ranks, for which run."""
METRICS = "metrics.json"
"""File that a script may add to a tag after the save: a JSON object of its metrics' values."""


class Kind(StrEnum):
    """Who wrote a tag, which is also who can load it."""

    DEEPSPEED = "deepspeed"
    UNIVERSAL = "universal"
    TRAINER = "trainer"
    ACCELERATE = "accelerate"
    DISTRIBUTED = "distributed"
    WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Tag:
    """One checkpoint.

    Attributes:
        name: name of its folder; DeepSpeed's tag, where DeepSpeed wrote it.
        path: the folder, which Trainer's `resume_from_checkpoint` and Accelerate's `load_state` take;
            DeepSpeed's `load_checkpoint` takes `path.parent` and `name`.
        step: optimizer steps done, of the name or of what the files say; None when neither tells.
        complete: whether everything that was to be saved is there and whole.
        why: what is missing or broken, in words; empty for a complete tag.
        world_size: data-parallel ranks that saved it; None when nothing tells.
        stage: ZeRO stage, 0 to 3; None when DeepSpeed did not write it.
        size: bytes of all its files.
        modified: when its newest file was written, epoch seconds.
        kind: who wrote it.
        ranks: all that saved it, model-parallel ones too; None when nothing tells.
    """

    name: str
    path: Path
    step: int | None
    complete: bool
    why: str
    world_size: int | None
    stage: int | None
    size: int
    modified: float
    kind: Kind
    ranks: int | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What one folder holds: file name to (bytes, epoch seconds), and the names of the folders in it."""

    path: Path
    files: dict[str, tuple[int, float]]
    folders: tuple[str, ...] = ()

    def newest(self) -> float:
        """Return when the newest file was written; 0 for a folder without files.

        The metrics are left out, which may be added long after the save.
        """
        times = (modified for name, (_, modified) in self.files.items() if name != METRICS)
        return max(times, default=0.0)

    def oldest(self) -> float:
        """Return when the oldest file was written; infinity for a folder without files."""
        return min((modified for _, modified in self.files.values()), default=math.inf)

    def size(self) -> int:
        """Return the bytes of all files, those of folders in it left out."""
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look into a tag's files gave; `problems` is empty for a complete tag."""

    problems: list[str] = field(default_factory=list)
    world_size: int | None = None
    ranks: int | None = None
    stage: int | None = None
    step: int | None = None


def listing(path: Path) -> Listing:
    """Read a folder; one that cannot be read, or was deleted meanwhile, is empty."""
    files: dict[str, tuple[int, float]] = {}
    folders: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.name)
                    continue
                with contextlib.suppress(OSError):  # deleted meanwhile, or a link to nothing
                    status = entry.stat()
                    files[entry.name] = (status.st_size, status.st_mtime)
    except OSError:
        return Listing(path, {})
    return Listing(path, files, tuple(sorted(folders)))


def step_of(name: str) -> int | None:
    """Return the step that a name tells; the last number wins in `epoch_3_step_120`."""
    found = _STEP.findall(name)
    return int(found[-1][0] or found[-1][1]) if found else None


def pruned(name: str) -> bool:
    """Return whether a name is one that a tag carries while it is being deleted."""
    return _PRUNED.fullmatch(name) is not None


def in_making(name: str) -> bool:
    """Return whether a name is one of a folder in which a universal checkpoint is being made."""
    return _MAKING.fullmatch(name) is not None


def aside(name: str) -> bool:
    """Return whether a name is one of a tag that was set aside (aside.py): a run went on from before it."""
    return _ASIDE.fullmatch(name) is not None


def before_aside(name: str) -> str:
    """Return the name that a tag had before it was set aside; that of any other tag is as it is."""
    match = _ASIDE.fullmatch(name)
    return name if match is None else match[1]


def temporary(name: str) -> bool:
    """Return whether a name is one that a file carries until it is whole (rsync's and ours among them)."""
    return _TEMPORARY.search(name) is not None


def named(words: list[str], most: int = 8) -> str:
    """Return words as a list for a message, not endless."""
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"
