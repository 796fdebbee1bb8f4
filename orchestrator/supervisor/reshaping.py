"""Between two attempts: the checkpoint of so many ranks is made fit for as many as there are now."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.checkpoints.aside import set_aside
from orchestrator.checkpoints.owner import note_renamed
from orchestrator.checkpoints.universal import zero_ranks
from orchestrator.checkpoints.universal_make import Conversion, conversion_for
from orchestrator.states import State
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.checkpoints.universal import Start
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir


def make_room(run_dir: RunDir, plan: LaunchPlan, start: Start) -> None:
    """Set tags aside that these ranks would save over with fewer shards; where that fails, the saves are."""
    if plan.checkpoint_dir is None or plan.deepspeed is None:
        return
    with contextlib.suppress(OSError):
        for old, new in set_aside(
            Path(plan.checkpoint_dir), start, zero_ranks(plan.deepspeed, plan.world_size)
        ):
            run_dir.add_event("set_aside", tag=old, name=new)
            note_renamed(run_dir, old, new)


class Reshaping:
    """One conversion, on this machine: on Slurm the batch host, else the one that submitted the job."""

    def __init__(self, run_dir: RunDir, plan: LaunchPlan, start: Start) -> None:
        self._run_dir = run_dir
        self._start = start
        self._ranks = plan.world_size
        self._conversion: Conversion = conversion_for(start.tag, plan, run_id=plan.run_id)

    async def make(self) -> None:
        """Convert; the run says so meanwhile.

        Raises:
            CheckpointError: it cannot be done, or `end` was called.
        """
        tag = self._start.tag
        told = {"tag": tag.name, "ranks": tag.world_size, "universal": self._start.name}
        self._run_dir.add_event("reshape", **told)
        saved_by = counted(tag.world_size or 0, "rank")
        words = f"converting {tag.name}, of {saved_by}, for {self._ranks}"
        self._run_dir.write_status(State.STARTING, words)
        notes = await asyncio.to_thread(self._conversion.run)
        self._run_dir.add_event("reshaped", **told, notes=notes)
        self._run_dir.write_status(State.STARTING)

    def end(self) -> None:
        """End it; nothing of it is left."""
        with contextlib.suppress(OSError):
            self._conversion.end()
