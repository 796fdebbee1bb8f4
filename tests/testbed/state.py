"""What is known of beds that are up: one `state.json` in each bed's directory."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def save(directory: Path, state: Mapping[str, Any]) -> None:
    """Record a bed's state, all at once."""
    draft = directory / "state.tmp"
    draft.write_text(json.dumps(state, indent=1) + "\n")
    draft.rename(directory / "state.json")


def load(directory: Path) -> dict[str, Any]:
    """Return a bed's recorded state; OSError or ValueError when there is none."""
    state: dict[str, Any] = json.loads((directory / "state.json").read_text())
    return state


@contextlib.contextmanager
def locked(base: Path) -> Iterator[None]:
    """Keep other processes from changing the beds below `base` that are nobody's; leaves no file there."""
    handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def beds(base: Path) -> dict[Path, dict[str, Any]]:
    """Return the recorded state of every bed below `base`, by its directory."""
    found = {}
    for path in sorted(base.glob("ob*/state.json")):
        with contextlib.suppress(OSError, ValueError):  # vanished meanwhile
            found[path.parent] = load(path.parent)
    return found
