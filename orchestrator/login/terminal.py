"""Ask the user at the terminal, wherever standard input and output go."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from orchestrator.errors import LoginError, Problem

_TERMINAL = Path("/dev/tty")


def ask(prompt: str, host: str, *, seen: bool) -> str:
    """Ask one question; the answer is shown while it is typed only if `seen`.

    Raises:
        LoginError: there is no terminal.
        Abort: the user ended it.
    """
    try:
        with _TERMINAL.open("r+b", buffering=0) as terminal:
            if seen:
                terminal.write(prompt.encode())
                return terminal.readline().decode("utf-8", "replace").rstrip("\n")
    except OSError as error:
        what = f"it asks {prompt.strip()!r}, and there is no terminal to ask at"
        raise LoginError(
            Problem(what, host, fix=f"run `orchestrate login {host}` in a terminal first")
        ) from error
    try:
        return getpass.getpass(prompt)  # which opens /dev/tty itself
    except EOFError:
        print(file=sys.stderr)
        raise click.Abort from None
