from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.launchers.base import SENTINEL
from orchestrator.launchers.srun import Line, SrunLauncher, parse_line
from orchestrator.rundir import AttemptDir
from tests import samples

# srun 22.05.8, captured
SAID = {
    "srun: error: node2: task 1: Exited with exit code 98": (("node2",), 98),
    "srun: error: node[1-2]: tasks 0-1: Killed": (("node1", "node2"), -9),
    "srun: error: node[1,3]: tasks 0,2: Terminated": (("node1", "node3"), -15),
    "srun: error: node1: task 0: Segmentation fault (core dumped)": (("node1",), -11),
    "srun: error: node1: task 0: Something new": (("node1",), None),
}


@pytest.mark.parametrize("line", SAID)
def test_the_end_of_a_task_is_told_of_its_host(line):
    hosts, code = SAID[line]
    assert parse_line(line) == Line(line, hosts=hosts, code=code)


def test_a_labelled_line_belongs_to_a_task():
    assert parse_line("1: @host node2") == Line("@host node2", task=1)
    assert parse_line("  12: text: more") == Line("text: more", task=12)


def test_sruns_own_words_belong_to_nobody():
    line = "srun: error: Unable to create step for job 7: Requested node configuration is not available"
    assert parse_line(line) == Line(line)


@given(st.text())
def test_no_line_is_too_odd(text):
    assert parse_line(text).text in text


def ends_of(folder, script):
    """Return what the launcher tells of the ends of tasks when srun does as the script says."""
    attempt = AttemptDir(folder)
    attempt.rendered.mkdir()
    (attempt.rendered / "srun.sh").write_text(script)
    told = []

    async def run():
        launcher = SrunLauncher(samples.plan(), attempt, lambda *end: told.append(end))
        await launcher.start(samples.plan().hosts)
        await launcher._watcher
        await launcher.close()

    asyncio.run(run())
    return told


@pytest.mark.parametrize("said", ["@orchestrate no module 'torch'", "a tool's own words"])
def test_the_last_words_may_come_after_the_end(tmp_path, said):
    # srun 22.05 reads the tasks' output and their ends from two connections, in no order
    told = ends_of(
        tmp_path,
        f"""echo '0: @host node1'
        echo 'srun: error: node1: task 0: Exited with exit code 98' >&2
        sleep 1
        echo "0: {said}"
        """,
    )
    assert ("node1", 98, said.removeprefix(SENTINEL)) in told


def test_a_task_may_speak_before_it_has_said_where_it_is(tmp_path):
    # the one is on srun's error output, the other on its output
    told = ends_of(
        tmp_path,
        """echo '1: @orchestrate no module torch' >&2
        echo '7: of nobody we know' >&2
        sleep 0.3
        echo '1: @host node2'
        echo 'srun: error: node2: task 1: Exited with exit code 98' >&2
        """,
    )
    assert ("node2", 98, "no module torch") in told
    assert "of nobody we know" in (tmp_path / "launcher.log").read_text().splitlines()
