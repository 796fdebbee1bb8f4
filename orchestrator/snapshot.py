"""Copy the workdir's files into the run, so that what ran is kept and can be sent to the hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from orchestrator.errors import Problem, SubmitError

_NEVER = {"__pycache__", "node_modules"}


def take_snapshot(workdir: Path, target: Path, *, leave_out: Path) -> int:
    """Copy the files of `workdir` to `target`; return how many.

    In a git work tree these are the tracked files as they stand now, changes included; elsewhere all
    files but hidden folders and caches.

    Args:
        workdir: the folder to copy.
        target: a folder that does not exist yet.
        leave_out: the folder of the runs, which may lie inside the workdir.

    Raises:
        SubmitError: a file cannot be copied.
    """
    names = workdir_files(workdir, leave_out)
    try:
        for name in names:
            _copy(workdir / name, target / name)
    except OSError as error:
        problem = Problem(f"cannot copy the workdir: {error.strerror}", "train.snapshot", error.filename)
        raise SubmitError(problem) from error
    return len(names)


def workdir_files(workdir: Path, leave_out: Path) -> list[str]:
    """Return what a workdir consists of: git's tracked files, or all but hidden folders and caches."""
    names = _tracked(workdir)
    return _walked(workdir, leave_out) if names is None else names


def _tracked(workdir: Path) -> list[str] | None:
    """Return git's tracked files below a folder; None where there is no git or no work tree."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=workdir, capture_output=True, check=False)
    except OSError:
        return None
    if done.returncode:
        return None
    names = os.fsdecode(done.stdout).split("\0")
    return [name for name in names if name and (workdir / name).exists()]


def _walked(workdir: Path, leave_out: Path) -> list[str]:
    names: list[str] = []
    for folder, children, files in os.walk(workdir):
        here = Path(folder)
        children[:] = [
            c for c in children if not c.startswith(".") and c not in _NEVER and here / c != leave_out
        ]
        names += [str((here / file).relative_to(workdir)) for file in files]
    return names


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        return  # a submodule: git lists its folder, its files are its own
    shutil.copy2(source, target)
