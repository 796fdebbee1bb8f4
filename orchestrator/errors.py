"""Every error a user can meet, as one tree.

    OrchestratorError          exit code 1
    |- JobFileError            exit code 2: the job file, a hostfile or a filter is wrong
    |  |- HostfileError        a line of a hostfile
    |  `- FilterError          an include or exclude filter
    |- SubmitError             exit code 3: the job is right but could not be submitted
    |  `- LoginError           the login host cannot be reached, or lacks what is needed there
    |- CommandError            exit code 2: the command asks for what is not there, or cannot be written
    |- RunNotFoundError        exit code 2: no run has that id
    `- CheckpointError         exit code 2: there is no such checkpoint, or none that may be used so
       `- ConversionError      exit code 1: one could not be converted

An error says what is wrong, where (file:line or key path), the value, and what to do about it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, where, the value, and the fix."""

    what: str
    where: str = ""
    value: str | None = None
    fix: str = ""

    def __str__(self) -> str:
        """Return the problem as `where: what (got value)` with the fix on a line of its own."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        got = "" if self.value is None else f" (got {self.value})"
        fix = f"\n  fix: {self.fix}" if self.fix else ""
        return f"{head}{got}{fix}"


class OrchestratorError(Exception):
    """A failure with one or more problems to show; `exit_code` is what the process ends with."""

    exit_code = 1

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(p if isinstance(p, Problem) else Problem(p) for p in problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class JobFileError(OrchestratorError):
    """The job file, a hostfile or a filter is wrong: nothing was started."""

    exit_code = 2


class HostfileError(JobFileError):
    """A hostfile cannot be read as one."""


class FilterError(JobFileError):
    """An include or exclude filter does not fit the hostfile."""


class CommandError(OrchestratorError):
    """The command line is right in itself, but asks for a host, rank, attempt or file that cannot be had."""

    exit_code = 2


class RunNotFoundError(OrchestratorError):
    """No run, or more than one, answers to that id."""

    exit_code = 2


class CheckpointError(OrchestratorError):
    """There is no such checkpoint, or it is not one that may be used like this."""

    exit_code = 2


class ConversionError(CheckpointError):
    """A checkpoint could not be converted; nothing was changed."""

    exit_code = 1


class SubmitError(OrchestratorError):
    """The job is right but could not be submitted: nothing of it is running."""

    exit_code = 3


class LoginError(SubmitError):
    """The login host cannot be reached, does not let us in, or lacks what is needed there."""
