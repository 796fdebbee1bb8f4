"""Copy a run's files to this machine: whole ones only, and not twice."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.login.client import LostError
from orchestrator.login.commands import talk_to

if TYPE_CHECKING:
    from orchestrator.login.records import RemoteRun
    from orchestrator.login.talk import Talk

_TRIES = 3


@dataclass(frozen=True)
class _Entry:
    """One file there; `mtime` in nanoseconds."""

    name: str
    kind: str
    size: int
    mtime: int
    target: str

    def place(self, folder: Path) -> Path:
        """Return where it goes; a name that leaves the folder is refused."""
        parts = PurePath(self.name).parts
        if not parts or ".." in parts or self.name.startswith("/"):
            raise OrchestratorError(Problem("a name that no run directory has", value=self.name))
        return folder / self.name

    def part(self, folder: Path) -> Path:
        """Return where it is while it is incomplete; another version of the file has another one."""
        path = self.place(folder)
        return path.with_name(f".{path.name}.{self.size}-{self.mtime}.part")

    def is_here(self, folder: Path) -> bool:
        """Tell whether this version of it is here already."""
        path = self.place(folder)
        if self.kind == "l":
            return path.is_symlink() and str(path.readlink()) == self.target
        if not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime)


def fetch(run: RemoteRun, what: str, folder: Path) -> tuple[int, int]:
    """Copy what is asked for into `folder`; return how many files and bytes were sent.

    A lost connection is made again; files that are here stay, and one that was being sent goes on where it
    ended.

    Raises:
        OrchestratorError: no such files, or they cannot be written here.
    """
    for _ in range(_TRIES - 1):
        try:
            return _fetch(run, what, folder)
        except LostError:
            continue
    return _fetch(run, what, folder)


def _fetch(run: RemoteRun, what: str, folder: Path) -> tuple[int, int]:
    with talk_to(run, {"verb": "fetch", "run_dir": run.run_dir, "what": what}) as talk:
        entries = [_Entry(*each) for each in talk.line()]
        try:
            wanted = [entry for entry in entries if not entry.is_here(folder)]
            return len(wanted), _take(talk, wanted, folder)
        except OSError as error:
            raise OrchestratorError(Problem(f"cannot write: {error.strerror}", error.filename)) from error


def _take(talk: Talk, wanted: list[_Entry], folder: Path) -> int:
    files = [entry for entry in wanted if entry.kind != "l"]
    asked: list[list[Any]] = []
    for entry in files:
        part = entry.part(folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        _clear(entry, folder)
        offset = part.stat().st_size if part.exists() else 0
        asked.append([entry.name, offset, entry.size - offset])
    talk.send_json(asked)
    for entry, (_, _, size) in zip(files, asked, strict=True):
        with entry.part(folder).open("ab") as file:
            talk.exactly(size, file.write)
        _finish(entry, folder)
    for entry in wanted:
        if entry.kind == "l":
            _link(entry, folder)
    return sum(size for _, _, size in asked)


def _clear(entry: _Entry, folder: Path) -> None:
    """Remove what is left of other versions of a file."""
    part = entry.part(folder)
    for other in part.parent.glob(f".{_literal(entry.place(folder).name)}.*-*.part"):
        if other != part:
            other.unlink()


def _literal(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _finish(entry: _Entry, folder: Path) -> None:
    part = entry.part(folder)
    part.chmod(0o755 if entry.kind == "x" else 0o644)
    os.utime(part, ns=(entry.mtime, entry.mtime))
    part.replace(entry.place(folder))


def _link(entry: _Entry, folder: Path) -> None:
    path = entry.place(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(entry.target)
