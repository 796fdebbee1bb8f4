"""Where a run's code came from: the git commit of its workdir, as it was at submit."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "ORCHESTRATE_SOURCE"
"""Holds what `source_of` said where the job was submitted from, when that is another machine."""
_SECONDS = 5.0  # for all files of a large project on a slow disk; the rest is known at once


def source_of(folder: Path) -> dict[str, Any]:
    """Return commit, branch and changed files of the git work tree that a folder is in; {} outside of one.

    `changed` counts tracked files that differ from the commit, and is absent where git took too long to say.
    Nothing is written, not even git's index, and no network is used.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    found: dict[str, Any] = {"commit": commit, "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD")}
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules")
    if changed is not None:
        found["changed"] = len(changed.splitlines())
    return found


def _git(folder: Path, *words: str) -> str | None:
    """Return what git answers; None where it is not installed, fails or takes too long."""
    command = ["git", "--no-optional-locks", *words]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


@cache
def told_source(folder: Path) -> dict[str, Any]:
    """Return source_of a folder; of files that were sent here, what it said where they came from.

    A folder is asked once: all runs of a sweep have the same.
    """
    told = os.environ.get(VARIABLE, "")
    if told:
        found: dict[str, Any] = json.loads(told)
        return found
    return source_of(folder)
