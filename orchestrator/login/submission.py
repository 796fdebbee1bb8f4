"""The login host's side of submit: once per run id, however often it is asked."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import RunDir
from orchestrator.sweep.sweepdir import SweepDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def submit_once(request: Mapping[str, Any], orchestrate: Callable[[list[str]], int]) -> int:
    """Submit, or find that an earlier try has; print what `submit --json` prints.

    Args:
        request: `job` (its folder here), `run_id`, `run_dir` and `words` of the command.
        orchestrate: runs a command line.
    """
    with _locked(Path(request["job"])):
        run = RunDir(Path(request["run_dir"]).expanduser())
        if run.record_file.exists():
            _start_what_was_not(run)
            found = {"run_id": run.run_id, "run_dir": str(run.path), "found": True}
            print(json.dumps(found | {"slurm_job_id": run.slurm_job().get("job_id")}))
            return 0
        sweep = SweepDir(run.path)
        if sweep.sweep_file.exists():
            print(json.dumps({"sweep_id": sweep.sweep_id, "sweep_dir": str(sweep.path), "found": True}))
            return 0
        if run.path.exists():
            shutil.rmtree(run.path)  # half made by a try that did not get as far as starting anything
        return orchestrate(list(request["words"]))


def _start_what_was_not(run: RunDir) -> None:
    """Start a run whose submit was killed between its last two steps; we hold the lock, so nobody else does.

    A run that was handed to Slurm says so before (PENDING); the supervisor of another one says so after.
    """
    from orchestrator.monitor.status import current_status  # noqa: PLC0415 - seldom needed
    from orchestrator.states import State  # noqa: PLC0415
    from orchestrator.submit import start  # noqa: PLC0415

    if "supervisor" in run.record() or run.status()["state"] is not State.CREATED:
        return
    if run.plan().slurm is not None or current_status(run)["state"] is State.LOST:
        start(run)


@contextlib.contextmanager
def _locked(job: Path) -> Iterator[None]:
    handle = os.open(job, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
