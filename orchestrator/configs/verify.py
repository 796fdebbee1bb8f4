"""Have the installed DeepSpeed and Accelerate load what we render, in a process of their Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM = Path(__file__).with_name("installed")
_OF_A_RANK = (  # a shell on a compute node has some of these: DeepSpeed would take itself for a rank
    *("ACCELERATE_", "LOCAL_RANK", "MASTER_", "MV2_", "OMPI_", "PMI_", "PMIX_", "RANK", "SLURM_"),
    *("TORCHELASTIC_", "WORLD_SIZE"),
)


@dataclass(frozen=True)
class Verified:
    """What the installed classes said.

    Attributes:
        deepspeed: version of the DeepSpeed that loaded its configuration; None when it could not be asked.
        accelerate: the same for Accelerate.
        problems: what they refuse.
        dropped: key paths that nobody reads; in Accelerate's file with `accelerate.yaml: ` before them.
        meant: for some of these, the keys that are read in that place and look like them.
        seconds: how long it took.
    """

    deepspeed: str | None = None
    accelerate: str | None = None
    problems: tuple[Problem, ...] = ()
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0
    meant: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def versions(self) -> dict[str, str | None]:
        """Return the versions by package."""
        return {"deepspeed": self.deepspeed, "accelerate": self.accelerate}

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Return a problem for each key that nobody reads: the training would run, without what it says."""
        return tuple(self._unread(path) for path in self.dropped)

    def _unread(self, path: str) -> Problem:
        file, _, key = path.rpartition(": ")
        reader = f"Accelerate {self.accelerate}" if file else f"DeepSpeed {self.deepspeed}"
        close = " or ".join(self.meant.get(path, ()))
        fix = f"did you mean {close}?" if close else "remove it"
        return Problem(f"{key} is not read by {reader}", file or "deepspeed", fix=fix)


class Running:
    """A process that loads the files; it ends, and its folder goes, with this object at the latest."""

    def __init__(self, process: subprocess.Popen[str] | None, folder: str) -> None:
        self._process = process
        self._started = time.monotonic()
        self._end = weakref.finalize(self, _end, process, folder)

    def result(self, timeout: float) -> Verified:
        """Wait and return what was said; nothing is known of a process that fails or takes too long.

        Args:
            timeout: seconds to wait at most; then the process is ended.
        """
        try:
            answer = self._answer(timeout)
        finally:
            self.close()
        return _verified(answer, time.monotonic() - self._started)

    def close(self) -> None:
        """End the process, if it still runs, and remove the folder."""
        self._end()

    def _answer(self, timeout: float) -> dict[str, Any]:
        if self._process is None:
            return {}
        with suppress(subprocess.TimeoutExpired, ValueError):
            answer: dict[str, Any] = json.loads(self._process.communicate(timeout=timeout)[0])
            return answer
        return {}


def start(files: Mapping[str, str], python: str, world_size: int = 0) -> Running:
    """Start to load files into the classes that the training will use.

    Args:
        files: `ds_config.json`, `accelerate.yaml` or both, by name: their text.
        python: the Python of the training; one that cannot be started has nothing to say.
        world_size: number of ranks; 0 for as many as the batch sizes fit.
    """
    folder = tempfile.mkdtemp(prefix="orchestrate-verify-")
    for name, text in files.items():
        Path(folder, name).write_text(text, encoding="utf-8")
    # A copy: that Python need not have us, and must not find the rest of what our Python has.
    shutil.copytree(_PROGRAM, Path(folder, _PROGRAM.name), ignore=shutil.ignore_patterns("__pycache__"))
    return Running(_start(python, folder, world_size), folder)


def _start(python: str, folder: str, world_size: int) -> subprocess.Popen[str] | None:
    program = shutil.which(python)
    if program is None:
        return None
    with suppress(OSError):
        return _popen([program, "-m", _PROGRAM.name, folder, str(world_size)], folder)
    return None


def _popen(argv: list[str], folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        argv,
        cwd=folder,  # where -m looks first
        env={name: value for name, value in os.environ.items() if not name.startswith(_OF_A_RANK)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


def _end(process: subprocess.Popen[str] | None, folder: str) -> None:
    if process is not None:
        process.kill()
        process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def _verified(answer: Mapping[str, Any], seconds: float) -> Verified:
    return Verified(
        answer.get("deepspeed"),
        answer.get("accelerate"),
        tuple(Problem(**problem) for problem in answer.get("problems", ())),
        tuple(answer.get("dropped", ())),
        seconds,
        {path: tuple(close) for path, close in answer.get("meant", {}).items()},
    )
