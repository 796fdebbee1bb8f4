"""The environment variables that a job's notifications need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.job import JobSpec, LoadedJob


def needed_by(spec: JobSpec) -> dict[str, str]:
    """Return the variables' names, each with the key path of an entry that needs it."""
    return {name: f"notify.{number}" for number, one in enumerate(spec.notify) for name in one.variables}


def values_for(job: LoadedJob, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables' values.

    Raises:
        JobFileError: some are not set, or empty.
    """
    needed = needed_by(job.spec)
    absent = [(where, name) for name, where in needed.items() if not environ.get(name)]
    if absent:
        what, fix = "names a variable that is not set in the environment", "export {}=… before submit"
        raise JobFileError(*(Problem(what, where, name, fix.format(name)) for where, name in absent))
    return {name: environ[name] for name in needed}
