"""The sweep directory: the one class that knows where everything of a sweep is.

<run_root>/<sweep_id>/
job.yaml sweep.json sweep.log cancel slurm.sbatch slurm-JOB_INDEX.out
told.start told.end                       somebody has told of these (`notify`)
<sweep_id>.<index>/                       a run directory per point
"""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import RunDir, read_json

if TYPE_CHECKING:
    from pathlib import Path

_LOCK_TRIES, _LOCK_PAUSE = 10, 0.1  # seconds; who only looks (is_driven) holds the lock for a moment


class SweepDir:
    """One sweep's directory.

    Args:
        path: the directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.job_file = self.path / "job.yaml"
        self.sweep_file = self.path / "sweep.json"
        self.log = self.path / "sweep.log"
        self.lock_file = self.path / "sweep.lock"
        self.cancel_file = self.path / "cancel"
        self.batch_script = self.path / "slurm.sbatch"

    @property
    def sweep_id(self) -> str:
        """Return the sweep's id, which is the directory's name."""
        return self.path.name

    def run_id(self, index: int) -> str:
        """Return the id of a point's run, which no other run has."""
        return f"{self.sweep_id}.{index}"

    def read(self) -> dict[str, Any]:
        """Return what submit wrote: name, created, backend, parallel and points; {} if it cannot be read."""
        return read_json(self.sweep_file) or {}

    def points(self) -> list[tuple[dict[str, Any], RunDir]]:
        """Return every point (index, label) with its run directory, in order."""
        return [
            (point, RunDir(self.path / self.run_id(point["index"])))
            for point in self.read().get("points", [])
        ]

    def lock(self) -> int | None:
        """Take the lock of who starts the points; return its descriptor, or None if somebody else has it."""
        handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(_LOCK_PAUSE)
            else:
                return handle
        os.close(handle)
        return None

    def is_driven(self) -> bool:
        """Tell whether a process is starting the points one after another."""
        try:
            with self.lock_file.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False
