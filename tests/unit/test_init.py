"""`orchestrate init` as a user meets it: in a terminal, without one, and with a template."""

from __future__ import annotations

import subprocess
import sys

import pytest

from orchestrator.init.flow import complete
from orchestrator.init.machine import Machine
from orchestrator.init.templates import templates
from orchestrator.job import load_job
from orchestrator.prepare import prepare
from tests.samples import ROOT
from tests.terminal import CTRL_C, CTRL_D, DOWN, ENTER, LEFT, UP, Terminal

COMMAND = [sys.executable, "-m", "orchestrator", "init"]
TEMPLATES = {template.name: template for template in templates()}
LOCAL = ("--set", "cluster.backend=local")


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
            command, cwd=work, env=env, capture_output=True, text=True, timeout=60, check=False, **source
        )

    return start


def answer_the_rest(terminal: Terminal) -> int:
    """Take every default from here on; return the exit code."""
    while terminal.process.poll() is None and "wrote" not in terminal.seen:
        terminal.send(ENTER)
        if not terminal.more(0.5):
            break
    return terminal.wait()


def test_arrow_keys_choose(terminal, work):
    with terminal() as here:
        here.expect("What is the job called?")
        here.expect("> ")
        here.send("demo\r")
        here.expect("Where does it run?")
        here.expect("Ctrl-C")
        here.send(DOWN + UP + ENTER)
        here.expect("How many hosts should be simulated?")
        here.expect("> ")
        here.send("2\r")
        here.expect("How many ranks")
        here.send("2\r")
        here.expect("Which script")
        here.send("\r")
        here.expect("What starts its ranks")
        here.expect("Ctrl-C")
        here.send(DOWN)
        here.expect("> deepspeed")
        here.send(ENTER)
        assert answer_the_rest(here) == 0, here.seen
    job = load_job(work / "job.yaml").spec
    assert (job.name, job.cluster.backend, job.cluster.nodes, job.cluster.slots) == ("demo", "local", 2, 2)
    assert job.train.launcher == "deepspeed"
    assert job.deepspeed.zero_stage == 3
    assert job.deepspeed.hpz == "node"
    assert "orchestrate plan job.yaml" in here.seen
    assert "orchestrate submit job.yaml" in here.seen


def test_partitions_are_chosen_from_what_sinfo_says(terminal, work, tmp_path):
    (tmp_path / "sinfo").write_text(
        "#!/bin/sh\necho 'cpu*|2|(null)|1:00:00|8'\necho 'gpu|8|gpu:a100:4|3-00:00:00|64'\n"
    )
    (tmp_path / "sinfo").chmod(0o755)
    with terminal() as here:
        here.expect("> ")
        here.send("\r")
        here.expect("Where does it run?")
        here.expect("> Slurm")
        here.send(ENTER)
        here.expect("Which partition?")
        here.expect("> gpu")
        here.send(UP)
        here.expect("> cpu")
        here.expect("2 nodes, no GPUs, 8 CPUs, at most 1:00:00.")
        here.send(DOWN)
        here.expect("8 nodes, a100:4")
        here.send(ENTER)
        here.expect("How many nodes?")
        here.expect("> ")
        here.send("\r")
        here.expect("How many GPUs on each node?")
        here.expect("[a100:4")
        assert answer_the_rest(here) == 0, here.seen
    cluster = load_job(work / "job.yaml").spec.cluster
    assert (cluster.slurm.partition, cluster.slurm.gpus_per_node, cluster.nodes) == ("gpu", "a100:4", 2)


def test_tab_completes_names_of_files(terminal, work):
    (work / "scripts").mkdir()
    (work / "scripts" / "pretraining.py").touch()
    with terminal(*LOCAL, "--set", "cluster.nodes=1", "--set", "cluster.slots=1", "--set", "name=x") as here:
        here.expect("Which script trains?")
        here.expect("> ")
        here.send("scripts/pre\t")
        here.expect("scripts/pretraining.py")
        here.send("\r")
        here.expect("What starts its ranks")
        assert answer_the_rest(here) == 0, here.seen
    assert str(load_job(work / "job.yaml").spec.train.script) == "scripts/pretraining.py"


def test_going_back_keeps_what_was_answered(terminal, work):
    with terminal() as here:
        here.expect("> ")
        here.send("first\r")
        here.expect("Ctrl-C")
        here.send(LEFT)
        here.expect("What is the job called?")
        here.expect("[first]")
        here.expect("> ")
        here.send("second\r")
        here.expect("Ctrl-C")
        here.send(ENTER)
        here.expect("How many hosts should be simulated?")
        here.expect("> ")
        here.send("<\r")
        here.expect("Where does it run?")
        here.expect("Ctrl-C")
        assert answer_the_rest(here) == 0, here.seen
    assert load_job(work / "job.yaml").spec.name == "second"


def test_a_wrong_value_is_asked_for_again(terminal, work):
    with terminal(*LOCAL) as here:
        here.expect("> ")
        here.send("\r")
        here.expect("How many hosts should be simulated?")
        here.expect("> ")
        here.send("none\r")
        here.expect("expected a whole number")
        here.expect("How many hosts should be simulated?")
        here.expect("> ")
        here.send("3\r")
        here.expect("How many ranks")
        assert answer_the_rest(here) == 0, here.seen
    assert load_job(work / "job.yaml").spec.cluster.nodes == 3


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("at", ["What is the job called?", "Where does it run?"])
def test_ending_it_leaves_nothing_behind(terminal, work, key, at):
    with terminal() as here:
        here.expect("What is the job called?")
        here.expect("> ")
        if at.startswith("Where"):
            here.send("\r")
            here.expect("Ctrl-C")
        assert here.end_with(key) == 130
    assert list(work.iterdir()) == []
    assert "Traceback" not in here.seen


def test_ctrl_c_gives_the_cursor_back(terminal):
    with terminal() as here:
        here.expect("> ")
        here.send("\r")
        here.expect("Ctrl-C")
        here.send(CTRL_C)
        assert here.wait() == 130
    assert here.seen.rindex("\x1b[?25h") > here.seen.rindex("\x1b[?25l")


def test_a_file_that_is_there_stays_unless_the_user_says_so(terminal, work):
    (work / "job.yaml").write_text("mine\n")
    with terminal() as here:
        here.expect("Replace it?")
        here.expect("Ctrl-C")
        here.send(ENTER)
        assert here.wait() == 0
    assert (work / "job.yaml").read_text() == "mine\n"
    with terminal() as here:
        here.expect("Replace it?")
        here.expect("Ctrl-C")
        here.send(DOWN + ENTER)
        here.expect("called?")
        here.expect("> ")
        assert answer_the_rest(here) == 0
    assert load_job(work / "job.yaml").spec.cluster.backend == "local"
    assert [path.name for path in work.iterdir()] == ["job.yaml"]


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
        here.send(CTRL_C)
        assert here.wait() == 130
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
            timeout=60,
        )
        loaded = set(done.stdout.rpartition("LOADED")[2].split())
        heavy = {"torch", "deepspeed", "accelerate", "transformers", "submitit", "paramiko", "numpy"}
        assert not loaded & (heavy | light), words
    assert (work / "job.yaml").is_file()
