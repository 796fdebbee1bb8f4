"""Find runs from anywhere: a link per run in the user's state directory, and the runs of this folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchestrator.errors import Problem, RunNotFoundError
from orchestrator.rundir import RunDir


def state_dir() -> Path:
    """Return where the links are (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(base) / "orchestrate" / "runs"


def remember(run_dir: Path) -> None:
    """Link a run; a home that cannot be written to costs only the convenience."""
    with contextlib.suppress(OSError):
        state_dir().mkdir(parents=True, exist_ok=True)
        link = state_dir() / run_dir.name
        if not link.exists():
            link.unlink(missing_ok=True)  # of a deleted run with that id
        link.symlink_to(run_dir)


def all_runs(run_root: Path | None = None) -> list[RunDir]:
    """Return every known run, oldest first; links to deleted runs are removed.

    Args:
        run_root: a folder of runs to look in as well.
    """
    found = {path.resolve() for path in _linked()}
    if run_root is not None and run_root.is_dir():
        found |= {path.parent.resolve() for path in run_root.glob("*/plan.json")}
    return sorted((RunDir(path) for path in found), key=_age)


def _linked() -> list[Path]:
    links = list(state_dir().iterdir()) if state_dir().is_dir() else []
    for link in links:
        if not (link / "plan.json").exists():
            with contextlib.suppress(OSError):
                link.unlink()
    return [link for link in links if (link / "plan.json").exists()]


def _age(run: RunDir) -> tuple[float, str]:
    try:
        return run.plan_file.stat().st_mtime, run.run_id
    except OSError:
        return 0.0, run.run_id


def find(word: str, run_root: Path | None = None) -> RunDir:
    """Return the run with that id, a unique beginning of an id, a path, or `last`.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    if (Path(word) / "plan.json").is_file():
        return RunDir(Path(word))
    runs = all_runs(run_root)
    if word == "last" and runs:
        return runs[-1]
    exact = [run for run in runs if run.run_id == word]
    matching = exact or [run for run in runs if run.run_id.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    what = f"{len(matching)} runs have an id that begins so" if matching else "no run has that id"
    names = ", ".join(run.run_id for run in (matching or runs)[-5:])
    raise RunNotFoundError(
        Problem(what, "RUN", word, f"one of: {names}" if names else "see `orchestrate list`")
    )
