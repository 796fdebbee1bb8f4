"""Failures without a word: what the kernel, the memory and the disk of the host say of them."""

from __future__ import annotations

import json

import pytest

from orchestrator.diagnose import diagnose
from orchestrator.rundir import write_json
from tests.made_run import made_run


@pytest.fixture
def failed(tmp_path):
    return made_run(tmp_path, failing=3)


def kill(failed, signal=9, exit_code=None):
    """Make an end without a word, by SIGKILL, of the failure of `failed`; return when it came."""
    verdict = failed.verdict()
    for cause in (verdict["first_failure"], *verdict["candidates"]):
        cause |= {"message": "", "signal": signal, "exit_code": exit_code}
    write_json(failed.verdict_file, verdict | {"summary": "rank 3 on node-1 failed first"})
    (failed.path / "attempt-1/logs/node-1.rank3.err").write_text("")
    return verdict["first_failure"]["time"]


@pytest.mark.parametrize(
    ("before", "named", "category"),
    [(60, {"rank": 3}, "host_oom"), (60, {}, "killed"), (1, {}, "host_oom"), (1, {"rank": 2}, "killed")],
)
@pytest.mark.parametrize("as_event", [True, False])
def test_a_process_of_somebody_else_that_the_kernel_ended_explains_nothing(
    failed, before, named, category, as_event
):
    fault = {"what": "oom_kill", "text": "Out of memory: Killed process 7291 (python)", **named}
    when = kill(failed) - before
    if as_event:
        event = fault | {"event": "oom_kill", "host": "node-1", "time": when}
        with failed.events_file.open("a") as file:
            file.write(json.dumps(event) + "\n")
    else:
        with (failed.path / "attempt-1/logs/node-1.samples").open("a") as file:
            file.write(json.dumps({"time": when, "faults": [fault]}) + "\n")
    assert diagnose(failed).category == category


@pytest.mark.parametrize(("used", "category"), [(0.5, "killed"), (0.97, "host_oom")])
def test_a_kill_while_the_memory_was_full_is_the_kernels(failed, used, category):
    record = {"time": kill(failed) - 5, "attempt": 1, "kind": "host", "host": "node-1"}
    with failed.metrics_file.open("a") as file:
        file.write(json.dumps({**record, "memory": used * 2**40, "memory_total": 2**40}) + "\n")
    assert diagnose(failed).category == category
    assert "killed by SIGKILL" in diagnose(failed).summary


@pytest.mark.parametrize(
    ("signal", "exit_code", "advice"),
    [
        (9, None, "most often the kernel or a cgroup out of memory"),
        (None, 137, "most often the kernel or a cgroup out of memory"),
        (11, None, "A crash in compiled code"),
        (None, 139, "A crash in compiled code"),
        (15, None, "Somebody or something on node-1 sent that signal"),
        (None, 130, "Somebody or something on node-1 sent that signal"),
    ],
)
def test_advice_goes_by_the_signal(failed, signal, exit_code, advice):
    kill(failed, signal, exit_code)
    told = diagnose(failed)
    assert (told.category, len(told.advice)) == ("killed", 2)
    assert advice in told.advice[0]


ABORT = """\
terminate called without an active exception
Fatal Python error: Aborted

Thread 0x00007f5ea7a77b80 (most recent call first):
  <no Python frame>
"""
RAISED = """\
Traceback (most recent call last):
  File "train.py", line 10, in main
KeyError: 'learning_rate'
"""


@pytest.mark.parametrize(("said", "category"), [(ABORT, "not_closed"), (RAISED + ABORT, "script_error")])
def test_an_abort_after_the_last_line_of_the_script_is_told_from_one_that_follows_an_exception(
    failed, said, category
):
    kill(failed, signal=6)
    (failed.path / "attempt-1/logs/node-1.rank3.err").write_text(said)
    assert diagnose(failed).category == category


@pytest.mark.parametrize(
    ("said", "last"),
    [
        ("error: no such model\n", "; it said last: error: no such model"),
        ("loading\nerror: no data; fix: name it\n", "; it said last: error: no data; fix: name it"),
        ("[W1121 17:00:00.1 x.cpp:1] Warning\n", ", as torch.distributed was not closed"),
        ("", ", as torch.distributed was not closed"),
    ],
)
def test_what_a_script_said_before_it_ended_with_an_abort_is_told(failed, said, last):
    kill(failed, signal=6)
    (failed.path / "attempt-1/logs/node-1.rank3.err").write_text(said + ABORT)
    told = diagnose(failed)
    assert told.category == "not_closed"
    assert f"{last}; 7 ranks were stopped" in told.summary


@pytest.mark.parametrize(("free", "category"), [(1 << 30, "exit_code"), (60 << 10, "disk_full")])
def test_a_rank_that_ends_silently_on_a_full_disk_could_not_say_why(failed, free, category):
    when = kill(failed, signal=None, exit_code=1)
    record = {"time": when - 5, "attempt": 1, "kind": "host", "host": "node-1", "disk_free": free}
    with failed.metrics_file.open("a") as file:
        file.write(json.dumps(record) + "\n")
    told = diagnose(failed)
    assert told.category == category
    words = "node-1 had 0.1 MiB left on the disk of the run's files"
    assert (words in [line.text for line in told.evidence]) == (category == "disk_full")
