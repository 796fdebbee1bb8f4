from __future__ import annotations

import json
import os
import time

import pytest

from orchestrator import __version__
from orchestrator.cli.main import _COMMANDS
from orchestrator.states import State
from tests import samples
from tests.samples import click, orchestrate

# -- runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_a_run_that_is_not_there_is_told_with_those_that_are(zero_run, here, command):
    done = orchestrate(command, "gone", cwd=here)
    assert done.returncode == 2
    assert done.stderr == "error: RUN: no run has that id (got gone)\n  fix: one of: zero-aaaa\n"


def test_status_shows_state_reason_and_hosts(zero_run, here):
    zero_run.add_event("launcher_started", host="node2")
    lines = click("status", "zero-aaaa").output.splitlines()
    assert lines[0] == "zero-aaaa  RUNNING"
    assert lines[1] == f"directory  {zero_run.path}"
    assert [line.split() for line in lines[2:5]] == [
        ["host", "state", "ranks", "what"],
        ["node1", "waiting", "2"],
        ["node2", "running", "2"],
    ]
    assert [line.split(maxsplit=1)[1] for line in lines[5:]] == ["node2: launcher started"]


def test_status_and_list_as_json_are_for_scripts(zero_run, here):
    status = json.loads(click("status", "--json").output)
    known = {key: status[key] for key in ("run_id", "run_dir", "state", "reason", "verdict")}
    expected = {
        "run_id": "zero-aaaa",
        "run_dir": str(zero_run.path),
        "state": "RUNNING",
        "reason": "",
        "verdict": None,
    }
    assert known == expected
    assert [host["host"] for host in status["hosts"]] == ["node1", "node2"]
    assert [entry["run_id"] for entry in json.loads(click("list", "--json").output)] == ["zero-aaaa"]


def test_list_has_the_latest_last_and_as_many_as_asked_for(zero_run, here):
    for number, run_id in enumerate(("a-1", "b-2", "c-3")):
        made = samples.run_dir(here / "runs", run_id, State.RUNNING)
        os.utime(made.plan_file, (time.time() + number + 1,) * 2)

    def ids(*words: str) -> list[str]:
        return [line.split()[0] for line in click("list", *words).output.splitlines()[1:]]

    assert ids() == ids("-n", "0") == ["zero-aaaa", "a-1", "b-2", "c-3"]
    assert ids("-n", "2") == ["b-2", "c-3"]


def test_an_empty_list_says_how_to_begin(here):
    assert "orchestrate submit JOB.yaml" in click("list").output
    assert json.loads(click("list", "--json").output) == []


def test_a_broken_run_does_not_hide_the_others(zero_run, here):
    broken = samples.run_dir(here / "runs", "broken", State.RUNNING)
    broken.record_file.write_text("{")
    broken.status_file.write_bytes(b"\xff")
    assert {line.split()[0] for line in click("list").output.splitlines()[1:]} == {"zero-aaaa", "broken"}


def test_cancel_of_an_ended_run_says_so(zero_run, here):
    zero_run.write_verdict({"state": "SUCCEEDED", "summary": "all well", "ended": 1.0})
    done = orchestrate("cancel", "zero-aaaa", cwd=here)
    assert (done.returncode, done.stdout) == (0, "zero-aaaa  SUCCEEDED  had ended already: all well\n")


# -- the command itself -------------------------------------------------------------------------------


def test_help_names_every_command_and_each_has_help_of_its_own():
    said = click("--help").output
    for name, entry in _COMMANDS.items():
        assert f"  {name}" in said
        assert f" {name} [OPTIONS]" in click(name, "--help").output
        assert entry.help.endswith(".")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["statsu"], 2, "No such command 'statsu'. Did you mean 'status'?"),
        (["dance"], 2, "No such command 'dance'."),
        (["render"], 2, "Missing argument"),
        (["render", "gone.yaml"], 2, "error: gone.yaml: no such file\n  fix: give the path of a job file"),
        (["submit", "job.yaml", "--set", "cluster.nodse=3"], 2, "nodse"),
        (["supervise", "gone"], 3, "cannot run gone"),
    ],
)
def test_mistakes_on_the_command_line_have_their_exit_code(here, words, code, told):
    done = orchestrate(*words, cwd=here)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in done.stderr


def test_what_cannot_be_written_is_told_as_not_submitted(here):
    (here / "runs").touch()
    done = orchestrate("submit", "job.yaml", cwd=here)
    assert done.returncode == 3
    assert "run_root: cannot write the run directory" in done.stderr


def test_a_dry_run_and_render_write_nothing(here):
    before = sorted(here.rglob("*"))
    done = orchestrate("submit", "--dry-run", "job.yaml", cwd=here)
    assert done.returncode == 0
    assert "2 ranks on 2 hosts (local, torchrun)" in done.stdout
    assert "nothing was written or started" in done.stdout
    assert orchestrate("render", "job.yaml", cwd=here).returncode == 0
    assert sorted(here.rglob("*")) == before


def test_render_prints_or_writes_the_files(here):
    printed = orchestrate("render", "job.yaml", cwd=here).stdout
    listed = orchestrate("render", "job.yaml", "-o", "out", cwd=here).stdout.split()
    heads = [line.removeprefix("# ---- ") for line in printed.splitlines() if line.startswith("# ---- ")]
    assert listed == [f"out/{head}" for head in heads]
    node = here / "out/attempt-1/rendered/node.sh"
    assert os.access(node, os.X_OK)
    assert node.read_text().splitlines()[:1] == ["#!/usr/bin/env bash"]


def test_the_version_is_the_packages():
    assert click("--version").output == f"orchestrate, version {__version__}\n"
