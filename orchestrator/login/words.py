"""What the login host says of a job file, with the names that its user knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.login.jobfile import as_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.job import LoadedJob


class Words:
    """Shows lines of the far program on our error output, its file names replaced by ours."""

    def __init__(self, job: LoadedJob, folder: str, settings: Mapping[tuple[str, ...], str]) -> None:
        names = {f"{folder}/job.yaml": str(job.path)}
        for path, value in settings.items():
            ours = _raw(job, path) or str(job.base_dir)
            names[f"--set {as_setting(path, value)}"] = job.source.place(path)
            names[value] = ours
        self._names = dict(sorted(names.items(), key=lambda pair: -len(pair[0])))
        self._rest = b""

    def show(self, data: bytes) -> None:
        """Take in bytes and show the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            click.echo(self.translated(line.decode("utf-8", "replace")), err=True)

    def finish(self) -> None:
        """Show what no line's end has followed."""
        if self._rest:
            self.show(b"\n")

    def translated(self, line: str) -> str:
        """Return a line with the user's own names."""
        for theirs, ours in self._names.items():
            line = line.replace(theirs, ours)
        return line


def _raw(job: LoadedJob, path: tuple[str, ...]) -> str | None:
    value = job.source.data
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else str(value)
