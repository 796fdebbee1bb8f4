"""`orchestrate init` without a terminal: lines, `--yes`, `--from`, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.init.flow import complete
from orchestrator.init.machine import Machine
from orchestrator.init.templates import templates
from orchestrator.job import load_job
from orchestrator.prepare import prepare
from tests.terminal import CTRL_C, Terminal

COMMAND = [sys.executable, "-m", "orchestrator", "init"]
TEMPLATES = {template.name: template for template in templates()}
LOCAL = ("--set", "cluster.backend=local")


def test_lines_answer_where_there_is_no_terminal(run, work):
    typed = "demo\nnowhere\n1\n2\n\n"
    done = run(typed=typed + "\n" * 30)
    assert done.returncode == 0, done.stderr
    assert "expected one of this machine, Slurm" in done.stdout
    job = load_job(work / "job.yaml").spec
    assert (job.name, job.cluster.nodes) == ("demo", 2)
    assert "\x1b" not in done.stdout


def test_what_stands_against_the_job_can_be_put_right_before_it_is_written(run, work):
    given = {"cluster.backend": "local", "deepspeed.precision": "fp16"}
    questions = len(complete(given, Machine(work, cpus=2))) - len(given)
    words = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    done = run(*words, typed="\n" * questions + "go back\n7B\n1024\n" + "write it\n")
    assert done.returncode == 0, done.stderr
    assert "before it can start: deepspeed.precision: CPUs" in done.stdout
    assert done.stdout.count("Write it all the same?") == 2
    assert done.stdout.count("Which model?") == 2
    assert load_job(work / "job.yaml").spec.model.parameters == 7_000_000_000


def test_a_dumb_terminal_gets_lines(work, environ):
    with Terminal(*COMMAND, *LOCAL, cwd=work, env={**environ, "TERM": "dumb"}) as here:
        here.expect("What is the job called?")
        here.send("x\r")
        here.expect("How many hosts")
        assert here.end_with(CTRL_C) == 130
    assert "\x1b[?25l" not in here.seen


def test_without_input_it_says_what_to_do(run, work):
    done = run()
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert list(work.iterdir()) == []


def test_yes_takes_the_defaults(run, work):
    (work / "train.py").touch()
    done = run(
        "--yes", "--set", "cluster.nodes=2", "--set", "train.args=[--lr, 1e-4]", "--set", "train.env.A=on"
    )
    assert done.returncode == 0, done.stderr
    job = load_job(work / "job.yaml")
    assert job.spec.train.args == ["--lr", "1e-4"]
    assert job.spec.train.env == {"A": "on"}
    assert job.spec.deepspeed.hpz == "node"  # two hosts: the answers to --set count for what is proposed
    assert prepare(job, {}).plan.name == "work"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--set", "deepspeed.zero_stage=7"], "--set deepspeed.zero_stage=7: expected 0, 1, 2 or 3"),
        (
            ["--set", "cluster.backend=ssh", "--set", "cluster.nodes=x"],
            "--set cluster.nodes=x: expected a whole",
        ),
        (["--set", "deepspeed.stage=2"], "unknown key"),
        (["--set", "name"], "not of the form a.b=value"),
        (["missing/job.yaml"], "there is no such folder"),
        (["."], "is a folder"),
    ],
)
def test_what_cannot_be_written_is_an_error(run, work, words, expected):
    done = run("--yes", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert list(work.iterdir()) == []


def test_a_wrong_setting_is_told_before_the_first_question(run):
    done = run("--set", "deepspeed.zero_stage=7")
    assert done.returncode == 2
    assert "--set deepspeed.zero_stage=7: expected" in done.stderr
    assert "?" not in done.stdout


@pytest.mark.parametrize("words", [["--yes"], ["--from", "zero2"]])
def test_force_replaces_a_file_and_nothing_else_does(run, work, words):
    file = work / "job.yaml"
    file.write_text("mine\n")
    file.chmod(0o640)
    done = run(*words)
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert file.read_text() == "mine\n"
    assert run(*words, "--force").returncode == 0
    assert load_job(file).spec.deepspeed.zero_stage == 2
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_is_still_missing_is_said(run):
    done = run("--yes")
    assert done.returncode == 0
    assert "before it can start: train.script: there is no such file" in done.stdout


def test_nothing_heavy_is_imported(work, environ):
    program = (
        "import sys\nfrom orchestrator.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('LOADED', *sys.modules)"
    )
    for words, light in (
        (["init", "--help"], {"pydantic", "yaml", "jinja2"}),
        (["init", "--list"], {"pydantic", "yaml", "jinja2"}),
        (["init", "--yes"], set()),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=work,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        loaded = set(done.stdout.rpartition("LOADED")[2].split())
        heavy = {"torch", "deepspeed", "accelerate", "transformers", "submitit", "paramiko", "numpy"}
        assert not loaded & (heavy | light), words
    assert (work / "job.yaml").is_file()
