"""Delete a checkpoint so that nobody ever finds half of one.

A tag first gets a hidden name, in one step (rename(2)), and then goes file by file. Who is killed in between
leaves a hidden folder, which `finish` deletes the next time; no tool takes it for a checkpoint, this one
included.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import Kind, listing, pruned

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from orchestrator.checkpoints.find import Sighting

_TRIES = 3  # somebody else may be deleting the same folder


def remove(seen: Sighting) -> str:
    """Delete a checkpoint.

    Returns:
        Why it is not deleted, or not all of it; empty when it is gone.
    """
    if seen.path.is_symlink():
        return "it is a link"
    if changed(seen):
        return "somebody is writing to it"
    hidden = seen.path.with_name(f".{seen.path.name}.pruned.{secrets.token_hex(3)}")
    try:
        seen.path.rename(hidden)
    except FileNotFoundError:
        return ""  # deleted by somebody else
    except OSError as error:
        return f"it cannot be renamed: {error.strerror}"
    if seen.kind is Kind.UNIVERSAL:
        _forget(seen.path)
    return _delete(hidden)


def _forget(path: Path) -> None:
    """Remove `latest_universal`, which our conversion wrote, where it names what is gone now."""
    named = path.with_name("latest_universal")
    with suppress(OSError):
        if named.read_text(encoding="utf-8").strip() == path.name:
            named.unlink()


def changed(seen: Sighting) -> bool:
    """Return whether a file of the checkpoint has come, gone or changed since it was seen."""
    return any(listing(part.path) != part for part in (seen.listing, *seen.parts))


def finish(folders: Iterable[Path]) -> list[str]:
    """Delete what earlier deletions left in these folders; return what still cannot be deleted, and why."""
    left = [
        folder / name
        for folder in sorted(set(folders))
        for name in listing(folder).folders
        if pruned(name) and not (folder / name).is_symlink()
    ]
    return [why for path in left if (why := _delete(path))]


def _delete(hidden: Path) -> str:
    """Delete a folder; links in it are removed and not followed (shutil.rmtree)."""
    for _ in range(_TRIES):
        try:
            shutil.rmtree(hidden)
        except FileNotFoundError:
            if not os.path.lexists(hidden):
                return ""
        except OSError as error:  # on NFS, a file that somebody has open stays as .nfs…
            return f"it is now {hidden.name}, which cannot be deleted yet: {error.strerror}"
        else:
            return ""
    return f"it is now {hidden.name}, which cannot be deleted yet"
