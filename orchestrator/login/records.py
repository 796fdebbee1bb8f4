"""What this machine remembers of runs that it submitted elsewhere: a file per run in the state directory."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from orchestrator import registry
from orchestrator.rundir import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class RemoteRun:
    """A run on a cluster that is reached through a login host.

    Attributes:
        run_id: chosen here, before anything is sent.
        login: `cluster.login` as JSON can hold it.
        program: the version of the program that was installed there for it.
        run_dir: its directory there; "" until the login host has told that it is submitted.
        planned_dir: where that will be.
        job_file: absolute path of the job file here.
        digest: of what was submitted, to know a second try.
        created: epoch seconds.
        last: the state as `list` showed it last, and when (`seen`).
    """

    run_id: str
    login: dict[str, Any]
    program: str
    job_file: str
    digest: str
    run_dir: str = ""
    planned_dir: str = ""
    created: float = field(default_factory=time.time)
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """Return the login host as the user wrote it."""
        return str(self.login["host"])

    def save(self) -> None:
        """Write it down."""
        folder().mkdir(parents=True, exist_ok=True)
        write_json(folder() / f"{self.run_id}.json", asdict(self), 0o600)

    def forget(self) -> None:
        """Remove it: there is no such run."""
        (folder() / f"{self.run_id}.json").unlink(missing_ok=True)


def folder() -> Path:
    """Return where the records are."""
    return registry.state_dir().parent / "remote"


def all_records() -> list[RemoteRun]:
    """Return every record, oldest first."""
    found = []
    for path in folder().glob("*.json"):
        with contextlib.suppress(TypeError):  # of another version
            found.append(RemoteRun(**(read_json(path) or {})))
    return sorted(found, key=lambda run: run.created)


def find(word: str, run_root: Path) -> RemoteRun | None:
    """Return the remote run that a user means by an id, its beginning, or `last`; None if it is another.

    A run of this machine goes before, and so does its directory.
    """
    records = all_records()
    if not records:
        return None
    if word == "last":
        return _last(records[-1], run_root)
    head, dot, index = word.rpartition(".")
    if dot and index.isdigit():
        sweep = find(head, run_root)
        return None if sweep is None else replace(sweep, run_dir=f"{sweep.run_dir}/{sweep.run_id}.{index}")
    exact = [run for run in records if run.run_id == word]
    matching = exact or [run for run in records if run.run_id.startswith(word)]
    local = [run for run in registry.all_runs(run_root) if run.run_id.startswith(word)]
    return matching[0] if len(matching) == 1 and (exact or not local) else None


def _last(newest: RemoteRun, run_root: Path) -> RemoteRun | None:
    local = registry.all_runs(run_root)
    return newest if not local or local[-1].plan_file.stat().st_mtime < newest.created else None


def unfinished(digest: str) -> RemoteRun | None:
    """Return the record of an earlier try to submit the same, of which no end is known."""
    return next((run for run in reversed(all_records()) if run.digest == digest and not run.run_dir), None)
