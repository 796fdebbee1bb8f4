"""Where questions are asked: a terminal with arrow keys, or plain lines where there is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

import click

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.init.question import Choice

BACK = "<"
"""What is typed to go back to the question before."""


class Screen(Protocol):
    """What the dialogue needs of a terminal."""

    hint: str

    def choose(self, choices: Sequence[Choice], at: int) -> int | str:
        """Return the place of a choice, or what was typed: a name, BACK, or nothing for the one at `at`."""

    def type(self) -> str:
        """Return a line as typed, BACK for going back."""


class Terminal:
    """A terminal: arrow keys to choose, and a line to edit, where Tab completes names of files."""

    hint = f"Ctrl-C ends this and leaves nothing behind; the left arrow, or {BACK} in a line, goes back."

    def __init__(self) -> None:
        try:
            import readline  # noqa: PLC0415 - not part of every Python
        except ImportError:
            return
        readline.set_auto_history(False)
        readline.set_completer_delims(" \t\n")
        readline.parse_and_bind("tab: complete")

    def choose(self, choices: Sequence[Choice], at: int) -> int | str:
        """Return the place of the choice taken, or BACK."""
        from orchestrator.init.selector import select_choice  # noqa: PLC0415 - needs a terminal

        chosen = select_choice(choices, at)
        return BACK if chosen is None else chosen

    def type(self) -> str:
        """Return a line as typed."""
        try:
            return input("> ")
        except EOFError:
            raise click.Abort from None


class Lines:
    """Standard input line by line, choices by number or name: without a terminal, and for TERM=dumb."""

    hint = f"An empty line takes what is in brackets, {BACK} goes back."

    def choose(self, choices: Sequence[Choice], at: int) -> int | str:
        """Return the place of the choice whose number was typed, or what else was typed."""
        numbered = not any(choice.label.isdecimal() for choice in choices)
        for place, choice in enumerate(choices):
            number = f"{place + 1}. " if numbered else ""
            mark = "*" if place == at else " "
            click.echo(f"  {mark}{number}{choice.label}: {choice.explanation}".rstrip(": "))
        typed = self.type().strip()
        chosen = int(typed) - 1 if numbered and typed.isdecimal() else -1
        return chosen if 0 <= chosen < len(choices) else typed

    def type(self) -> str:
        """Return a line as typed.

        Raises:
            JobFileError: the input has ended.
        """
        click.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            click.echo()
            what, fix = (
                "the input ended before the last question",
                "give --yes to take the defaults, or a terminal",
            )
            raise JobFileError(Problem(what, "standard input", fix=fix))
        return line


def open_screen(environ: Mapping[str, str]) -> Screen:
    """Return the terminal, or lines where there is none that knows arrow keys."""
    capable = environ.get("TERM", "") not in ("", "dumb")
    return Terminal() if capable and sys.stdin.isatty() and sys.stdout.isatty() else Lines()
