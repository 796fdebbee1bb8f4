"""A check on Slurm without an allocation: `salloc` asks for one and runs the same check inside it.

salloc gives the hosts back when the check ends, is interrupted or killed, which a batch job of ours would
not: nothing is left in the queue.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from orchestrator.errors import Problem, SubmitError
from orchestrator.slurm.options import sbatch_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.job import LoadedJob

TIME_LIMIT = "10"
"""Minutes: a check takes seconds, and a short job starts where a long one waits (backfill)."""
BUILD_TIME_LIMIT = "30"
"""Minutes, where operators are built: all builds of one host have twenty."""

# What sbatch alone knows, and what would keep a check from starting now, or send mail about it.
_LEFT_OUT = frozenset(
    {
        *("array", "batch", "error", "export", "export-file", "hold", "ignore-pbs", "input", "no-requeue"),
        *("open-mode", "output", "parsable", "requeue", "test-only", "wait", "wait-all-nodes", "wrap"),
        *("begin", "deadline", "dependency", "mail-type", "mail-user", "signal", "time", "time-min"),
    }
)
_GRANTED = "salloc: Granted job allocation"


def salloc_command(job: LoadedJob, words: Sequence[str]) -> list[str]:
    """Return the command that asks for the job's hosts and runs `orchestrate` with these words on them.

    Raises:
        FilterError, JobFileError: the job file does not say what to ask for.
    """
    asked = sbatch_options(job.spec)
    options = [
        f"--{name}" if value is None else f"--{name}={value}"
        for name, value in asked.items()
        if name not in _LEFT_OUT
    ]
    limit = BUILD_TIME_LIMIT if "--build-ops" in words else TIME_LIMIT
    own = [f"--time={limit}", f"--job-name=check {job.spec.name}"]
    inside = [sys.executable, "-m", "orchestrator", *words, "--in-allocation", "--from-login"]
    return ["salloc", *options, *own, *inside]


def check_in_new_allocation(job: LoadedJob, words: Sequence[str]) -> int:
    """Ask Slurm for the job's hosts, show that we wait, run the check there; return its exit code.

    Args:
        job: the job file.
        words: the command line, after `orchestrate`.

    Raises:
        SubmitError: Slurm gives no hosts.
    """
    command = salloc_command(job, words)
    if shutil.which("salloc") is None:
        fix = "run it on a host with Slurm's commands, or inside an allocation that you hold"
        raise SubmitError(Problem("salloc is not installed on this machine", "cluster.backend", "slurm", fix))
    with subprocess.Popen(command, env=_environ(), stderr=subprocess.PIPE, text=True) as process:
        with _forwarding(process):
            granted, said = _relay(process)
        code = process.wait()
    if granted:
        return code
    told = "; ".join(line.removeprefix("salloc: error: ") for line in said if "error" in line)
    why = told or f"salloc ended with {code}"
    raise SubmitError(Problem(f"Slurm gives no hosts: {why}", "cluster.slurm"))


def _environ() -> dict[str, str]:
    """Return our environment without what would win over the options (salloc(1), "INPUT ENVIRONMENT")."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("SALLOC_", "SLURM_JOB"))
    }


def _relay(process: subprocess.Popen[str]) -> tuple[bool, list[str]]:
    """Pass on what salloc and the check say on standard error; return whether hosts came, and all of it."""
    said: list[str] = []
    granted = False
    for line in process.stderr or ():
        granted = granted or line.startswith(_GRANTED)
        said.append(line.strip())
        click.echo(line, nl=False, err=True)
    return granted, said


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[str]) -> Iterator[None]:
    """Hand signals on to salloc for the length of the block, and end with it: it gives the hosts back."""

    def hand_on(number: int, _: object) -> None:
        process.send_signal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    old = {number: signal.signal(number, hand_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
