"""A folder that is there when all of it is, and not before."""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator.errors import CheckpointError, OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK = ".lock"


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` to write in, until `publish`; what is still there at the end is removed.

    Its name is always the same, so what a killed try left is used up by the next one.

    Raises:
        CheckpointError: `out` is there already, or somebody else writes it.
        OrchestratorError: nothing can be written there.
    """
    making = out.with_name(f".{out.name}.incomplete")
    if out.is_symlink() or out.is_mount():  # neither can be replaced by a folder: not after hours of work
        what = "it is a link" if out.is_symlink() else "it is a disk of its own"
        raise CheckpointError(Problem(what, "OUT", str(out), "name a folder in it"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(Problem("it is there already", "OUT", str(out), "name a folder that is not"))
    try:
        making.mkdir(parents=True, exist_ok=True)
        lock = (making / _LOCK).open("w")
    except OSError as error:
        raise OrchestratorError(Problem(f"cannot be written: {error.strerror}", "OUT", str(out))) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another process is writing it at this moment"
            raise CheckpointError(Problem(what, "OUT", str(out), "wait for it, or name another")) from None
        try:
            _empty(making)
            yield making
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            path.unlink()


def publish(making: Path, out: Path) -> None:
    """Give the folder its name.

    Raises:
        OrchestratorError: something else has that name by now.
    """
    try:
        making.rename(out)  # over an empty folder too
        (out / _LOCK).unlink()  # not before: who finds no lock begins with an empty folder
    except OSError as error:
        what = f"cannot be given its name: {error.strerror}"
        raise OrchestratorError(Problem(what, "OUT", str(out), "name a folder that is not there")) from None
