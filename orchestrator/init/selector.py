"""Choosing with arrow keys: a list on a terminal, in raw mode while it is shown.

It is all that is needed of a library. prompt_toolkit, which questionary stands on, is larger than this whole
program and takes longer to import than `orchestrate --help` to run.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import textwrap
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.init.question import Choice

_ESCAPE_WAIT = 0.05  # seconds after Esc in which the rest of an arrow key's sequence arrives
_HINT = "up, down: move   Enter: take   left: back   Ctrl-C: end"
_KEYS = {
    **dict.fromkeys(("\x1b[A", "\x1bOA", "k", "\x10"), "up"),
    **dict.fromkeys(("\x1b[B", "\x1bOB", "j", "\x0e", "\t"), "down"),
    **dict.fromkeys(("\x1b[D", "\x1bOD", "<", "h"), "back"),
    **dict.fromkeys(("\x1b[C", "\x1bOC", "\r", "\n", " "), "take"),
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~"), "first"),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~"), "last"),
}


def select_choice(choices: Sequence[Choice], at: int) -> int | None:
    """Let the user choose; return the place of the choice, None for going back.

    Args:
        choices: what there is.
        at: the place that is marked at first.

    Raises:
        KeyboardInterrupt: Ctrl-C, or the terminal went away.
    """
    with _raw():
        while True:
            height = _draw(choices, at)
            key = _key()
            _erase(height)
            if key == "take":
                return at
            if key == "back":
                return None
            at = _moved(key, at, len(choices))


def _moved(key: str, at: int, count: int) -> int:
    if key.isdecimal() and 1 <= int(key) <= count:
        return int(key) - 1
    step = {"up": -1, "down": 1}.get(key, 0)
    return {"first": 0, "last": count - 1}.get(key, (at + step) % count)


@contextmanager
def _raw() -> Iterator[None]:
    """Get every key at once and unseen; Ctrl-C stays an interrupt. What was is restored in any case."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSADRAIN)
        sys.stdout.write("\x1b[?25l")  # no cursor
        yield
    finally:
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key() -> str:
    """Return the next key by its name, or itself. One byte at a time: what is typed ahead is for others."""
    found = _byte()
    if found == "\x1b":
        while select.select([sys.stdin], [], [], _ESCAPE_WAIT)[0]:
            found += _byte()
            if len(found) > 2 and found[-1] not in "0123456789;":
                break
    return _KEYS.get(found, found)


def _byte() -> str:
    byte = os.read(sys.stdin.fileno(), 1)
    if not byte or byte == b"\x04":
        raise KeyboardInterrupt
    return byte.decode("latin-1")


def _draw(choices: Sequence[Choice], at: int) -> int:
    """Draw the list and what the marked choice means; return the number of lines."""
    columns, rows = shutil.get_terminal_size()
    room = max(3, rows - 8)
    first = max(0, min(at - room // 2, len(choices) - room))
    lines = []
    for number, choice in enumerate(choices[first : first + room], first):
        label = f"{'>' if number == at else ' '} {choice.label}"[: columns - 1]
        lines.append(f"\x1b[36m{label}\x1b[0m" if number == at else label)
    explained = textwrap.wrap(choices[at].explanation, max(20, columns - 5))[:3]
    lines += [f"\x1b[2m    {line}\x1b[0m" for line in explained]
    lines.append(f"\x1b[2m{_HINT[: columns - 1]}\x1b[0m")
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
    return len(lines)


def _erase(height: int) -> None:
    sys.stdout.write(f"\x1b[{height}A\x1b[J")
