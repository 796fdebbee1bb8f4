"""Delete a run's old checkpoints while it goes on (`train.keep_checkpoints`).

A thread of its own: a shared disk that hangs must not keep the supervisor from its hosts. It is a daemon, and
may be cut off at any moment (see checkpoints/remove.py).
"""

from __future__ import annotations

import os
import socket
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.checkpoints.prune import Pruned
    from orchestrator.plan import KeepPlan, LaunchPlan
    from orchestrator.rundir import RunDir

_POLL, _LONGEST = 15.0, 240.0  # seconds; longer and longer while a save is under way, which costs many files
_LAST_SECONDS = 60.0  # for the last look, after the verdict: on Slurm the hosts wait for it


def start_keeping(run_dir: RunDir, plan: LaunchPlan) -> Keeping | None:
    """Start to delete what the job file does not want to keep; None when it wants to keep everything.

    Before the run begins, it is noted which checkpoints are not its own, for `checkpoint prune` too.
    """
    if plan.checkpoint_dir is None:
        return None
    from orchestrator.checkpoints.owner import note_before  # noqa: PLC0415 - not every run has a folder

    note_before(run_dir, Path(plan.checkpoint_dir))
    if plan.keep is None:
        return None
    keeping = Keeping(run_dir, Path(plan.checkpoint_dir), plan.keep, remote=plan.backend != "local")
    keeping.start()
    return keeping


class Keeping(threading.Thread):
    """Looks from time to time whether a new checkpoint is complete, and deletes the old ones then."""

    def __init__(self, run_dir: RunDir, folder: Path, keep: KeepPlan, *, remote: bool) -> None:
        super().__init__(name="keeping", daemon=True)
        self._run_dir = run_dir
        self._folder = folder
        self._keep = keep
        self._remote = remote
        self._over = threading.Event()
        self._seen: frozenset[tuple[str, float]] = frozenset()
        self._told: set[str] = set()

    def run(self) -> None:
        """Look until `finish` is called, and once more then."""
        pause = _POLL
        while not self._over.wait(pause):
            pause = _POLL if self._look() else min(2 * pause, _LONGEST)
        self._look()
        self._miss()

    def finish(self) -> None:
        """Look a last time, at what was saved at the end, and wait for it, but not for ever."""
        self._over.set()
        self.join(_LAST_SECONDS)

    def _look(self) -> bool:
        """Delete what may go; return whether there was nothing to wait for."""
        try:
            marks = frozenset(self._marks())
            if marks == self._seen:
                return True
            settled = self.look()
        except Exception as error:  # noqa: BLE001 - whatever a disk does, the run must not suffer from it
            if repr(error) not in self._told:
                self._told.add(repr(error))
                traceback.print_exc()
            return False
        self._seen = marks if settled else self._seen
        return settled

    def look(self) -> bool:
        """Delete what may go; return whether the newest checkpoint was complete."""
        from orchestrator.checkpoints import prune  # noqa: PLC0415 - few runs have any to delete
        from orchestrator.checkpoints.command import known_runs  # noqa: PLC0415
        from orchestrator.checkpoints.lineage import lineage_of  # noqa: PLC0415

        folder = self._folder.resolve()
        if not prune.settled(folder):
            return False
        line = lineage_of(self._run_dir, folder, known_runs(self._run_dir.path.parent))
        self._tell(prune.prune(folder, self._keep, line.foreign, needed=line.needed))
        return True

    def _miss(self) -> None:
        """Say so where nothing was ever seen: hosts may save on their own disks."""
        from orchestrator.checkpoints import sightings  # noqa: PLC0415 - as above

        if self._remote and not sightings(self._folder):
            what = f"none was ever seen in {self._folder} on {socket.gethostname()}"
            why = "what hosts save on disks of their own is not deleted"
            self._run_dir.add_event("not_pruned", reasons=[f"{what}; {why}"])

    def _marks(self) -> Iterator[tuple[str, float]]:
        """Yield names and times that change when a checkpoint comes, for the price of one folder."""
        for path in (self._folder, self._folder / "latest"):
            with suppress(OSError):
                yield str(path), path.stat().st_mtime
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    yield entry.name, entry.stat().st_mtime

    def _tell(self, done: Pruned) -> None:
        if done.gone:
            names = [seen.path.name for seen in done.gone]
            self._run_dir.add_event("pruned", tags=names, bytes=sum(seen.size for seen in done.gone))
        told = [*(f"{path.name}: {why}" for path, why in done.failed.items()), *done.leftovers]
        new = [why for why in told if why not in self._told]
        if new:
            self._told.update(new)
            self._run_dir.add_event("not_pruned", reasons=new)
