"""New complete checkpoints, looked for in a thread of its own: a disk that hangs holds up nothing else."""

from __future__ import annotations

import os
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_FIRST, _LONGEST = 5.0, 240.0  # seconds; longer and longer while a save is under way, which costs many files


class Tags(threading.Thread):
    """Looks from time to time which checkpoints have become complete.

    Args:
        folder: where the run saves.
        told: names that need not be told, because they have been; None when nobody has looked yet: what
            lies there now was saved before the run.
    """

    def __init__(self, folder: Path, told: Iterable[str] | None) -> None:
        super().__init__(name="tags", daemon=True)
        self._folder = folder
        self._first = told is None
        self._told = set(told or ())
        self._over = threading.Event()
        self._marks: frozenset[tuple[str, float]] | None = None
        self.found: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def run(self) -> None:
        """Look until `finish` is called, and once more then; a disk that fails is asked again."""
        pause = 0.0
        while not self._over.wait(pause):
            pause = _FIRST if self._look() else min(2 * max(pause, _FIRST), _LONGEST)
        self._marks = None
        self._look()

    def finish(self, seconds: float) -> None:
        """Look a last time, at what was saved at the end, but wait no longer than `seconds`."""
        self._over.set()
        self.join(seconds)

    def _look(self) -> bool:
        """Return whether nothing is being saved."""
        with suppress(Exception):  # whatever a disk does, or a file that is deleted meanwhile
            marks = frozenset(_marks(self._folder))
            if marks != self._marks:
                settled = self._examine()
                self._marks = marks if settled else None
                return settled
            return True
        return False

    def _examine(self) -> bool:
        from orchestrator.checkpoints.find import sightings  # noqa: PLC0415 - not every run saves

        settled = True
        for seen in sightings(self._folder):
            if seen.path.name in self._told:
                continue
            tag = seen.examine()
            settled = settled and tag.complete
            if not tag.complete:
                continue
            self._told.add(tag.name)
            if not self._first:
                began = min((when for _, when in seen.listing.files.values()), default=seen.modified)
                self.found.put(
                    {
                        "event": "checkpoint",
                        "tag": tag.name,
                        "step": tag.step,
                        "began": began,
                        "ended": tag.modified,
                    }
                )
        self._first = False
        return settled

    @property
    def told(self) -> list[str] | None:
        """Return the names that need not be told again; None before the first look."""
        return None if self._first else sorted(self._told)


def _marks(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield names and times that change when a checkpoint comes, for the price of one folder."""
    for path in (folder, folder / "latest"):
        with suppress(OSError):
            yield os.fspath(path), path.stat().st_mtime
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                yield entry.name, entry.stat().st_mtime
