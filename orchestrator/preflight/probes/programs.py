"""A program that the check brought along, as a child process whose lines go home with ours."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from orchestrator.agent import processes

from . import answers


class Program:
    """One program of a visit.

    Args:
        words: its arguments; a first word "python" is the python that runs us, and a relative name of a
            file that was brought along is found in `folder`, where the program starts.
        folder: where those files are.
        mark: what its environment carries, so that whatever it starts can be found.

    Attributes:
        code: its exit code, minus a signal's number; None while it runs.
    """

    def __init__(self, words: list[str], folder: str, mark: str) -> None:
        self._words = [sys.executable, *words[1:]] if words[:1] == ["python"] else list(words)
        self._folder = folder
        self._mark = mark
        self._process: Any = None
        self._reader: threading.Thread | None = None
        self.code: int | None = None

    def start(self) -> None:
        """Start it; what cannot be started ends with 127, as in a shell."""
        import subprocess  # noqa: PLC0415 - most visits start no program

        try:
            self._process = subprocess.Popen(
                self._words,
                cwd=self._folder,
                env=dict(os.environ, **{processes.MARK: self._mark}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=processes.die_with_parent,  # noqa: PLW1509 - no thread of ours runs yet
            )
        except OSError as error:
            answers.say(f"cannot start {self._words[0]}: {error.strerror}")
            self.code = 127
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            answers.say(line.decode("utf-8", "replace").rstrip("\r\n"))

    @property
    def over(self) -> bool:
        """Tell whether it has ended and all it said has been passed on."""
        if self.code is None and self._process is not None:
            self.code = self._process.poll()
        reading = self._reader is not None and self._reader.is_alive()
        return self.code is not None and not reading

    @property
    def runs(self) -> bool:
        """Tell whether it has been started and has not ended."""
        return not self.over and self.code is None and self._process is not None

    def ask_to_end(self) -> None:
        """Have it clear up and end, if it still runs: torch's lock file outlives a builder that is killed."""
        if self.runs:
            answers.say(f"{os.path.basename(self._words[0])} was ended: its time was up")
            self._process.terminate()

    def end(self) -> None:
        """Kill it if it still runs; whatever it started is found by its mark."""
        if self.runs:
            self._process.kill()
            self.code = -9
