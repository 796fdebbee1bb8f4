"""Running Slurm's own commands so that they print the same for every user, and do not hold us up."""

from __future__ import annotations

import os
import subprocess

_SECONDS = 10.0
_FORMATS = ("SQUEUE_", "SACCT_", "SCONTROL_")


def run(*argv: str) -> tuple[str, str]:
    """Run one of Slurm's commands; return what it printed, and why it failed or an empty text."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"{argv[0]} did not answer within {_SECONDS:.0f} s"
    except OSError as error:
        return "", f"{argv[0]} cannot be run here: {error.strerror}"
    if done.returncode == 0:
        return done.stdout, ""
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return "", said[-1] if said else f"{argv[0]} ended with {done.returncode}"


def _environment() -> dict[str, str]:
    """Return the environment of Slurm's commands: the user's, but for what changes what they print."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FORMATS)}
    # Without SLURM_BITSTR_LEN=0 squeue cuts the ids of an array's waiting elements after 64 characters.
    return kept | {"SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
