"""Fixtures of the unit tests: the agent as hosts get it, short folders, processes that end with the test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.agent import processes
from orchestrator.bundle import agent_zip
from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the agent's zip file, as a bundle holds it."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(agent_zip())
    return path


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder with a short path: a socket's may be 107 bytes long."""
    with tempfile.TemporaryDirectory(prefix="orch-") as path:
        yield Path(path)


@pytest.fixture
def mark() -> str:
    """Return a mark for processes that no others carry."""
    return f"test/{uuid.uuid4().hex}"


@pytest.fixture
def spawn(mark: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a marked process, its output a pipe of text; what carries the mark ends."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str | Path, **options: Any) -> subprocess.Popen[str]:
        environ = {**os.environ, processes.MARK: mark, **options.pop("env", {})}
        words = list(map(str, argv))
        started.append(
            subprocess.Popen(words, env=environ, text=True, **{"stdout": subprocess.PIPE, **options})
        )
        return started[-1]

    yield start
    processes.kill_all(mark, (), (), seconds=5)
    for process in started:
        process.communicate()


@pytest.fixture
def python(spawn: Callable[..., subprocess.Popen[str]]) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts a marked Python with a program as text; the agent can be imported."""

    def start(program: str, *argv: str | Path, **options: Any) -> subprocess.Popen[str]:
        environ = {"PYTHONPATH": str(ROOT), **options.pop("env", {})}
        return spawn(sys.executable, "-c", program, *argv, env=environ, **options)

    return start
