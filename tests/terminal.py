"""A terminal to drive a program by: a pty that is its controlling terminal, so that Ctrl-C reaches it."""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

UP, DOWN, RIGHT, LEFT, ENTER, CTRL_C, CTRL_D = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\r", "\x03", "\x04"
_OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A program in a terminal; `with` ends both."""

    def __init__(self, *words: str | Path, cwd: Path, env: Mapping[str, str], patience: float = 120) -> None:
        self.ours, theirs = os.openpty()
        self.patience = patience
        self.seen = ""
        self._at = 0  # what expect() has gone past
        self._decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end inside a character
        self.process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env=env,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.ours, text.encode())

    def expect(self, text: str) -> None:
        """Wait until the program has printed a text, after what was expected before."""
        end = time.monotonic() + self.patience
        while text not in self.seen[self._at :]:
            assert self._read(end), f"no {text!r} after {self.seen[self._at :]!r}"
        self._at = self.seen.index(text, self._at) + len(text)

    def more(self, seconds: float) -> bool:
        """Read what comes within some seconds; return whether the program may print more."""
        return self._read(time.monotonic() + seconds) or self.process.poll() is None

    def wait(self) -> int:
        """Return the program's exit code, with all that it printed in `seen`."""
        end = time.monotonic() + self.patience
        while self._read(end):
            pass
        return self.process.wait(self.patience)

    def end_with(self, key: str) -> int:
        """Type a key until the program ends; return its exit code.

        Once is not always enough: CPython 3.11 loses a Ctrl-C between its prompt and its wait for a key
        (`readline_until_enter_or_signal`), and a user would press it again.
        """
        for _ in range(3):
            self.send(key)
            end = time.monotonic() + 10
            while self._read(end):
                pass
            if time.monotonic() < end:
                break
        return self.process.wait(self.patience)

    def _read(self, end: float) -> bool:
        """Read what there is; False at the end of the output or of the patience."""
        if not select.select([self.ours], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # EIO: the program has closed its side
            return False
        self.seen += self._decode(data)
        return bool(data)
