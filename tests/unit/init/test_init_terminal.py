"""`orchestrate init` in a terminal: arrow keys, going back, giving up."""

from __future__ import annotations

import pytest

from orchestrator.init.templates import templates
from orchestrator.job import load_job
from tests.terminal import CTRL_C, CTRL_D, DOWN, ENTER, LEFT, UP, Terminal

TEMPLATES = {template.name: template for template in templates()}
LOCAL = ("--set", "cluster.backend=local")


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
        assert here.end_with(CTRL_C) == 130
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
