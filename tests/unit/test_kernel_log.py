from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.agent.kernel_log import KernelLog, fault_of, kills, message_of

OOM = (
    "Out of memory: Killed process 4711 (python3) total-vm:98765432kB, anon-rss:65432100kB, file-rss:0kB, "
    "shmem-rss:0kB, UID:1000 pgtables:128000kB oom_score_adj:0"
)
CGROUP = "Memory cgroup out of memory: Killed process 12 (pt main (thread)) total-vm:1kB, anon-rss:1kB"
XID = "NVRM: Xid (PCI:0000:3B:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (OOM, {"what": "oom_kill", "pid": 4711, "process": "python3", "text": OOM}),
        (XID, {"what": "xid", "bus": "0000:3b:00", "code": 79, "text": XID}),
        (
            "Out of memory (oom_kill_allocating_task): Killed process 5 (x) total-vm:1kB",
            {"what": "oom_kill", "pid": 5, "process": "x"},
        ),
        ("python3 invoked oom-killer: gfp_mask=0x140cca", None),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module", None),
        ("", None),
    ],
)
def test_faults_are_told_from_other_messages(message, fault):
    found = fault_of(message)
    assert found == (None if fault is None else {"text": message, **fault})


def test_a_memory_cgroups_kill_is_one_too():
    assert fault_of(CGROUP)["pid"] == 12


def test_a_record_is_taken_apart():
    assert message_of(b"6,339,5140900,-;NET: Registered; ok\n SUBSYSTEM=x\n") == "NET: Registered; ok"
    assert message_of(b"4,1,2,-;caf\xff\n") == "caf\ufffd"
    assert message_of(b"") == ""


def test_only_what_comes_after_the_start_is_told(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(f"3,1,1,-;{OOM}\n")
    log = KernelLog(str(path))
    assert log.new() == []
    with path.open("a") as file:
        file.write(f"3,2,2,-;{XID}\n")
    assert [(fault["what"], fault["bus"]) for fault in log.new()] == [("xid", "0000:3b:00")]
    assert log.new() == []


def test_the_kernels_own_log_is_read_where_it_may_be():
    """A message of ours comes back through the real /dev/kmsg."""
    if not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("/dev/kmsg cannot be written here")
    log = KernelLog()
    if log._handle is None:
        pytest.skip("/dev/kmsg cannot be read here")
    with Path("/dev/kmsg").open("w") as kmsg:
        kmsg.write(f"<5>orchestrate test: {CGROUP}")
    found = log.new()
    if not found:
        pytest.skip("this kernel keeps no messages for us")
    assert found[0]["pid"] == 12


def test_kills_are_counted_where_the_log_cannot_be_read(tmp_path, monkeypatch):
    counts = iter(["nr_free 1\noom_kill 3\nx 1\n", "nr_free 1\noom_kill 5\nx 1\n", "oom_kill 5"])
    monkeypatch.setattr("orchestrator.agent.kernel_log.read_text", lambda _: next(counts))
    log = KernelLog(str(tmp_path / "none"))
    (fault,) = log.new()
    assert fault["what"] == "oom_kill"
    assert "ended 2 process" in fault["text"]
    assert log.new() == []


def test_a_kernel_that_does_not_count_has_killed_nobody():
    assert kills("nr_free 1\n") == 0
