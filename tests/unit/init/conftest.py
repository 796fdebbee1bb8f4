"""`orchestrate init` as a user starts it: where, with what in the environment, with a terminal or without."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.samples import ROOT
from tests.terminal import Terminal

COMMAND = [sys.executable, "-m", "orchestrator", "init"]


@pytest.fixture
def environ(tmp_path):
    """Return an environment with none of the tools that questions look for, and no colours of the user's."""
    kept = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}


@pytest.fixture
def work(tmp_path):
    """Return an empty folder to work in."""
    path = tmp_path / "work"
    path.mkdir()
    return path


@pytest.fixture
def terminal(work, environ):
    """Return a function that starts the command in a terminal."""
    return lambda *words: Terminal(*COMMAND, *words, cwd=work, env=environ)


@pytest.fixture
def run(work, environ):
    """Return a function that runs the command without a terminal."""

    def start(*words, typed=None, **more):
        source = {"input": typed} if typed is not None else {"stdin": subprocess.DEVNULL}
        command = [*COMMAND, *map(str, words)]
        env = {**environ, **more}
        return subprocess.run(
            command, cwd=work, env=env, capture_output=True, text=True, timeout=240, check=False, **source
        )

    return start
