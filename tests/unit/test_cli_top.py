"""The command `orchestrate top` itself."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from orchestrator.errors import OrchestratorError, RunNotFoundError
from tests.made_run import made_run
from tests.samples import ROOT, click
from tests.terminal import Terminal


def test_it_runs_in_a_terminal_and_leaves_it_as_it_was(here):
    pytest.importorskip("textual")
    run = made_run(here / "runs", over=False)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    with Terminal(sys.executable, "-m", "orchestrator", "top", run.run_id, cwd=here, env=env) as terminal:
        terminal.expect("\x1b[?1049h")
        terminal.expect("job-made")
        terminal.expect("4 hosts, 8 ranks")
        assert terminal.end_with("q") == 0
        terminal.expect("\x1b[?1049l")


def test_without_textual_it_says_what_to_install(here, monkeypatch):
    made_run(here / "runs", over=False)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "textual" else real(name, *rest)
    )
    done = click("top", "job-made")
    assert isinstance(done.exception, OrchestratorError)
    assert "textual is not installed beside orchestrate" in str(done.exception)
    assert "pip install 'zeropp-orchestrator[monitor]'" in str(done.exception)


def test_without_a_terminal_it_says_what_to_use(here):
    pytest.importorskip("textual")
    made_run(here / "runs", over=False)
    done = click("top", "job-made")
    assert "needs a terminal" in str(done.exception)
    assert "orchestrate status job-made" in str(done.exception)


def test_no_such_run(here):
    done = click("top", "nothing")
    assert isinstance(done.exception, RunNotFoundError)


def test_a_sweep_is_not_one_run(here):
    (here / "train.py").touch()
    (here / "sweep.yaml").write_text(
        "name: many\ncluster: {backend: local, nodes: 1}\ntrain: {script: train.py, args: ['{lr}']}\n"
        "matrix: {lr: [1, 2]}\n"
    )
    from orchestrator.sweep.sweepdir import SweepDir

    sweep = SweepDir(here / "runs" / "many-abcd")
    sweep.path.mkdir(parents=True)
    sweep.sweep_file.write_text("{}")
    done = click("top", str(sweep.path))
    assert "is a sweep" in str(done.exception)
