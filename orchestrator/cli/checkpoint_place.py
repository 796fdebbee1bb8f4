"""Where the checkpoints lie that a command names; a command about a run elsewhere runs there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.checkpoints.place import Place


def place_of(run: str, run_root: Path, out: Path | None = None) -> Place | int:
    """Return where the checkpoints are; the exit code for a run elsewhere, where the command has run now.

    Args:
        run: what the user named.
        run_root: a folder of runs to look in as well.
        out: a folder to write, which is one of that machine then.
    """
    from orchestrator.checkpoints.place import find_place

    if Path(run).expanduser().is_dir():
        return find_place(run, run_root)
    from orchestrator.cli.login import forward
    from orchestrator.errors import CheckpointError, Problem
    from orchestrator.login import records

    if out is not None and not out.is_absolute() and records.find(run, run_root) is not None:
        what, fix = "the run is on another machine, where OUT will be", "give an absolute path there"
        raise CheckpointError(Problem(what, "OUT", str(out), fix))
    code = forward(run, run_root)
    return find_place(run, run_root) if code is None else code
