"""The program that puts weights together (gather/), as a process of the training's Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAM = Path(__file__).with_name("gather")
_OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Talk:
    """A conversation with the program: lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], words: IO[str]) -> None:
        self._process = process
        self._words = words

    def ask(self, request: dict[str, Any]) -> None:
        """Send the request."""
        self._say(json.dumps(request))

    def go_on(self) -> None:
        """Have it write what it has found."""
        self._say("")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # its answer, or the lack of one, says why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def answer(self, key: str) -> dict[str, Any]:
        """Return the answer with that key.

        Raises:
            OrchestratorError: the program has a problem, or ended.
        """
        told = self._next()
        value: dict[str, Any] = told[key]
        return value

    def until_done(self, hear: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Return the last answer; `hear` takes those before it."""
        while "done" not in (told := self._next()):
            hear(told)
        done: dict[str, Any] = told["done"]
        return done

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise OrchestratorError(self._ended())
        told: dict[str, Any] = json.loads(line)
        if "problem" in told:
            raise OrchestratorError(Problem(told["problem"], fix=told.get("fix", "")))
        return told

    def _ended(self) -> Problem:
        code = self._process.wait()
        if code == -9:
            return Problem(
                "the program was killed, as the kernel does when the memory is full",
                fix="use a machine with more memory",
            )
        self._words.seek(0)
        last = [line.strip() for line in self._words if line.strip()][-1:] or [f"exit code {code}"]
        return Problem(f"the program that reads the checkpoint failed: {last[0][:400]}")


@contextmanager
def program(python: str) -> Iterator[Talk]:
    """Start the program, in a folder of its own: that Python must not find the rest of what ours has."""
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-gather-") as folder,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words,
    ):
        shutil.copytree(_PROGRAM, Path(folder, _PROGRAM.name), ignore=shutil.ignore_patterns("__pycache__"))
        process = subprocess.Popen(
            [python, "-m", _PROGRAM.name],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            encoding="utf-8",
        )
        try:
            yield Talk(process, words)
        finally:
            process.kill()
            process.communicate()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_RANK}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
