"""The values of the variables that notifications need, in the run directory while the run lives.

A supervisor on Slurm, or one that takes over, need not have the environment of submit. The file is there as
long as the end of the run has not been told: whoever takes it away tells of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.rundir import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.rundir import RunDir

_PRIVATE = 0o600


def write_values(run_dir: RunDir, values: Mapping[str, str]) -> None:
    """Keep the values, readable by the user alone."""
    write_json(run_dir.notify_file, dict(values), _PRIVATE)


def read_values(run_dir: RunDir) -> dict[str, str]:
    """Return the values; nothing where the file is not there, or is another user's."""
    return {name: str(value) for name, value in (read_json(run_dir.notify_file) or {}).items()}


def take_values(run_dir: RunDir) -> dict[str, str] | None:
    """Return the values and take the file away; None where somebody else has, or it is another user's."""
    values = read_json(run_dir.notify_file)
    if values is None:
        return None
    try:
        run_dir.notify_file.unlink()
    except OSError:
        return None
    return {name: str(value) for name, value in values.items()}
