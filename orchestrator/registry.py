"""Find runs and sweeps from anywhere: a link each in the user's state directory, and those of this folder."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from orchestrator.errors import Problem, RunNotFoundError
from orchestrator.rundir import RunDir
from orchestrator.sweep.sweepdir import SweepDir

_PLAN, _SWEEP = "plan.json", "sweep.json"
_NAMED = 5  # ids, in a message


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


def all_runs(run_root: Path | None = None, *, tidy: bool = True) -> list[RunDir]:
    """Return every known run, oldest first; links to deleted runs are removed.

    Args:
        run_root: a folder of runs to look in as well.
        tidy: whether to remove them; a compute host may lack the disk that a link leads to.
    """
    return sorted(map(RunDir, _found(_PLAN, run_root, tidy=tidy)), key=_age)


def all_sweeps(run_root: Path | None = None, *, tidy: bool = True) -> list[SweepDir]:
    """Return every known sweep, oldest first; the runs of its points are not among all_runs.

    Args:
        run_root: a folder of runs to look in as well.
        tidy: see `all_runs`.
    """
    found = map(SweepDir, _found(_SWEEP, run_root, tidy=tidy))
    return sorted(found, key=lambda sweep: sweep.read().get("created", 0.0))


def _found(marker: str, run_root: Path | None, *, tidy: bool) -> set[Path]:
    """Return the folders, but hidden ones, that hold a file of that name: links, and those in `run_root`."""
    found = {link.resolve() for link in _linked(tidy=tidy) if (link / marker).exists()}
    if run_root is not None and run_root.is_dir():
        found |= {path.parent.resolve() for path in run_root.glob(f"[!.]*/{marker}")}
    return found


def _linked(*, tidy: bool) -> list[Path]:
    links = list(state_dir().iterdir()) if state_dir().is_dir() else []
    live = [link for link in links if (link / _PLAN).exists() or (link / _SWEEP).exists()]
    for link in set(links).difference(live) if tidy else ():
        with contextlib.suppress(OSError):
            link.unlink()
    return live


def _age(run: RunDir) -> tuple[float, str]:
    try:
        return run.plan_file.stat().st_mtime, run.run_id
    except OSError:
        return 0.0, run.run_id


def find_sweep(word: str, run_root: Path | None = None) -> SweepDir | None:
    """Return the sweep with that id, a unique beginning of one, or that path; None if it names none.

    `last` is a sweep if nothing was submitted after it.
    """
    if (Path(word) / _SWEEP).is_file():
        return SweepDir(Path(word))
    sweeps = all_sweeps(run_root)
    if word == "last" and sweeps:
        runs = all_runs(run_root)
        newest = float(sweeps[-1].read().get("created", 0.0))
        return sweeps[-1] if not runs or _age(runs[-1])[0] < newest else None
    exact = [sweep for sweep in sweeps if sweep.sweep_id == word]
    if exact or not word:
        return exact[0] if exact else None
    matching = [sweep for sweep in sweeps if sweep.sweep_id.startswith(word)]
    if len(matching) == 1 and not any(run.run_id.startswith(word) for run in all_runs(run_root)):
        return matching[0]
    return None


def find(word: str, run_root: Path | None = None) -> RunDir:
    """Return the run with that id, a unique beginning of an id, a path, or `last`; SWEEP.INDEX is a point's.

    Raises:
        RunNotFoundError: there is none, or more than one.
    """
    if (Path(word) / _PLAN).is_file():
        return RunDir(Path(word))
    sweep_word, dot, index = word.rpartition(".")
    sweep = find_sweep(sweep_word, run_root) if dot and index.isdecimal() else None
    if sweep is not None:
        return _point(sweep, int(index), word)
    sweep = find_sweep(word, run_root)
    if sweep is not None:
        raise _no_run("is a sweep of many runs", word, [run.run_id for _, run in sweep.points()])
    runs = all_runs(run_root)
    if word == "last" and runs:
        return runs[-1]
    exact = [run for run in runs if run.run_id == word]
    matching = exact or [run for run in runs if run.run_id.startswith(word)]
    sweeps = all_sweeps(run_root)
    names = [run.run_id for run in matching]
    names += [sweep.sweep_id for sweep in sweeps if sweep.sweep_id.startswith(word) and not exact]
    if matching and len(names) == 1:
        return matching[0]
    if names:
        raise _no_run(f"{len(names)} runs have an id that begins so", word, names[::-1])
    if "/" in word and Path(word).is_dir():
        raise _no_run(f"is no run directory: it has no {_PLAN}", word, [])
    known = [*(run.run_id for run in runs), *(sweep.sweep_id for sweep in sweeps)]
    raise _no_run("no run has that id", word, known[::-1])


def _point(sweep: SweepDir, index: int, word: str) -> RunDir:
    run = RunDir(sweep.path / sweep.run_id(index))
    if not run.plan_file.is_file():
        raise _no_run("the sweep has no such point", word, [run.run_id for _, run in sweep.points()])
    return run


def _no_run(what: str, word: str, names: list[str]) -> RunNotFoundError:
    """Return the error that names some of what there is.

    Args:
        what: is wrong with it.
        word: what was given.
        names: what could have been meant, the most likely first.
    """
    more = f"; {len(names) - _NAMED} more in `orchestrate list -n 0`" if len(names) > _NAMED else ""
    fix = f"one of: {', '.join(names[:_NAMED])}{more}" if names else "see `orchestrate list`"
    return RunNotFoundError(Problem(what, "RUN", word, fix))
