from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.agent.cgroup import Own
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
    """A message of ours comes back through the real /dev/kmsg; it is no fault, as other runs read it too."""
    if not os.access("/dev/kmsg", os.W_OK):
        pytest.skip("/dev/kmsg cannot be written here")
    log = KernelLog()
    told = f"orchestrate test {os.getpid()}"
    with Path("/dev/kmsg").open("w") as kmsg:
        kmsg.write(f"<5>{told}\n")
    found = log._messages()
    if not found:
        pytest.skip("/dev/kmsg cannot be read here, or takes few messages")
    assert told in found


class Counter:
    """/proc/vmstat, which counts kills."""

    def __init__(self, monkeypatch) -> None:
        self.kills = 3
        monkeypatch.setattr("orchestrator.agent.kernel_log.read_text", lambda _: self.text())
        monkeypatch.setattr("orchestrator.agent.kernel_log.own", lambda: Own("", None, "/nowhere"))

    def text(self) -> str:
        return f"nr_free 1\noom_kill {self.kills}\nx 1\n"


def test_kills_are_counted_where_the_log_cannot_be_read(tmp_path, monkeypatch):
    counter = Counter(monkeypatch)
    log = KernelLog(str(tmp_path / "none"))
    counter.kills += 2
    (fault,) = log.new()
    assert (fault["what"], "ended 2 processes" in fault["text"]) == ("oom_kill", True)
    assert log.new() == []


def test_a_kill_that_a_message_names_is_told_once_however_late_it_comes(tmp_path, monkeypatch):
    counter = Counter(monkeypatch)
    path = tmp_path / "kmsg"
    path.touch()
    log = KernelLog(str(path))

    def say() -> None:
        with path.open("a") as file:
            file.write(f"3,1,1,-;{OOM}\n")

    counter.kills += 1
    assert log.new() == []  # its message may be on the way
    say()
    assert [fault["pid"] for fault in log.new()] == [4711]
    assert log.new() == log.new(last=True) == []
    say()
    assert [fault["pid"] for fault in log.new()] == [4711]
    counter.kills += 2
    assert [log.new(), [fault["text"] for fault in log.new()], log.new()] == [
        [],
        ["the kernel's OOM killer ended 2 processes on this host, of this run or of others"],
        [],
    ]
    counter.kills += 1
    assert len(log.new(last=True)) == 1


def test_a_kernel_that_does_not_count_has_killed_nobody():
    assert kills("nr_free 1\n") == 0


def _whose(pid: int, cgroup: str) -> str:
    told = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom"
    return f"{told},task_memcg={cgroup},task=python3,pid={pid},uid=1000"


@pytest.mark.parametrize(
    ("own", "uid", "cgroup", "other"),
    [
        ("0::/job_5/step_0", 1000, "/job_5/step_0", False),
        ("0::/job_5/step_0", 1000, "/job_5/step_0/task_1", False),
        ("0::/job_5/step_0", 1000, "/job_51/step_0", True),
        ("0::/job_5/step_0", 1001, "/job_5/step_0", True),
        ("0::/", 1000, "/job_51/step_0", False),  # the kernel knows us by another path
        ("0::/../x", None, "/job_51", False),
        ("7:cpu:/a\n4:cpuset,memory:/slurm/5\n0::/b", 1000, "/slurm/5", False),
        ("7:cpu:/a\n4:cpuset,memory:/slurm/5\n0::/b", 1000, "/slurm/6", True),
        ("", None, "/x", False),
    ],
)
def test_a_kill_of_somebody_elses_process_is_told_from_ours(monkeypatch, own, uid, cgroup, other):
    monkeypatch.setattr("orchestrator.agent.kernel_log.own", lambda: Own(own, uid, "/nowhere"))
    log = KernelLog("/nowhere")
    monkeypatch.setattr(log, "_messages", lambda: [_whose(4711, cgroup), OOM])
    fault = log.new()[0]
    assert (fault["pid"], fault.get("other", False)) == (4711, other)


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("0::/job_5", "job_5/memory.events", "low 0\nhigh 0\nmax 9\noom 4\noom_kill {}\n"),
        (
            "4:memory:/job_5",
            "memory/job_5/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
    ],
)
def test_kills_of_our_own_cgroup_are_counted_and_no_others(tmp_path, monkeypatch, own, file, text):
    counter = tmp_path / file
    counter.parent.mkdir(parents=True)
    counter.write_text(text.format(2))
    monkeypatch.setattr("orchestrator.agent.kernel_log.own", lambda: Own(own, 1000, str(tmp_path)))
    monkeypatch.setattr(
        "orchestrator.agent.kernel_log.read_text", lambda _: pytest.fail("asks for the host's")
    )
    log = KernelLog(str(tmp_path / "none"))
    assert log.new() == []
    counter.write_text(text.format(3))
    assert [fault["text"] for fault in log.new()] == [
        "the kernel's OOM killer ended 1 process of this run's cgroup"
    ]
