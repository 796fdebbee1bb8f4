"""Fixtures of the unit tests: the agent as hosts get it, short folders, processes that end with the test."""

from __future__ import annotations

import json
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
from orchestrator.states import State
from tests import planned, samples
from tests.samples import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.rundir import RunDir


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
    """Return a function that starts a marked process, its output a pipe; all marked ones are ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str | Path, **options: Any) -> subprocess.Popen[str]:
        environ = {**os.environ, processes.MARK: mark, **options.pop("env", {})}
        words = list(map(str, argv))
        started.append(
            subprocess.Popen(words, env=environ, text=True, **{"stdout": subprocess.PIPE, **options})
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()  # at once: while it is being started its environment cannot be read
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a job and a state directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "job.yaml").write_text("cluster: {backend: local, nodes: 2}\ntrain: {script: train.py}\n")
    (tmp_path / "train.py").touch()
    return tmp_path


@pytest.fixture
def zero_run(here: Path) -> RunDir:
    """Return the run zero-aaaa of two hosts, with logs of every kind."""
    made = samples.run_dir(here / "runs", "zero-aaaa", State.RUNNING, backend="pdsh")
    logs = made.attempt(1).logs
    (logs / "node1.log").write_bytes(b"starting\nunfinished")
    (logs / "node1.rank0.out").write_bytes(b"step 1\rstep 2\r\ncaf\xe9\n")
    (logs / "node2.rank3.err").write_text("ValueError: bad\n")
    (logs / "node2.rank2.out").write_text("ok\n")
    return made


@pytest.fixture
def job(here: Path) -> Callable[..., Path]:
    """Return a function that writes job.yaml: that of tests.planned with a model, and what else is asked."""

    def write(text: str = "", *, model: bool = True, base: str = planned.JOB) -> Path:
        text = base + (f"model: {json.dumps(planned.MODEL)}\n" if model else "") + text
        (here / "job.yaml").write_text(text)
        return here / "job.yaml"

    return write
