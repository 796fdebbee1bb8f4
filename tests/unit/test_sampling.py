"""Samples of this very machine: its counters, and the trees of real processes."""

from __future__ import annotations

import json
import os
import sys
import time

import pytest

from orchestrator.agent import host_facts
from orchestrator.agent.sampling import Sampler
from orchestrator.agent.trees import Rates, Trees, read_use

psutil = pytest.importorskip("psutil")
NET = """Inter-|   Receive            |  Transmit
 face |bytes    packets errs |bytes    packets errs
    lo: 1000 1 0 0 0 0 0 0 1000 1 0 0 0 0 0 0
  eth0: 20 5 0 0 0 0 0 0 30 5 0 0 0 0 0 0
ib0:300 5 0 0 0 0 0 0 400 5 0 0 0 0 0 0
"""
DISKS = """ 259 0 nvme0n1 10 0 100 5 20 0 200 5 0 5 5 0 0 0 0 0 0
 259 1 nvme0n1p1 10 0 100 5 20 0 200 5 0 5 5 0 0 0 0 0 0
 253 0 dm-0 10 0 100 5 20 0 200 5 0 5 5 0 0 0 0 0 0
   8 0 sda 1 0 2 5 2 0 4 5 0 5 5
"""


def test_counters_are_read_as_proc_5_writes_them():
    assert host_facts.cpu_ticks("cpu  10 1 20 500 7 3 4 2 9 9\ncpu0 1\n") == 40
    assert host_facts.cpu_ticks("cpu  10 1 20 500 7 3 4\n") == 38  # Linux before 2.6.11 knows no steal
    meminfo = "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\nHugePages_Total:       0\n"
    assert host_facts.memory(meminfo) == {"memory": 600 * 1024, "memory_total": 1000 * 1024}


@pytest.mark.parametrize(
    ("physical", "received", "sent"),
    [({"eth0"}, 20, 30), ({"eth0", "ib0", "x"}, 320, 430), (set(), 320, 430)],
)
def test_bytes_count_where_they_pass_a_device(physical, received, sent):
    assert host_facts.network(NET, physical) == {"received": received, "sent": sent}


def test_disks_count_and_neither_parts_of_them_nor_what_is_made_of_them():
    whole = {"nvme0n1", "dm-0", "sda"}
    assert host_facts.disks(DISKS, whole) == {"read": 102 * 512, "written": 204 * 512}


def test_this_machine_is_told_as_psutil_tells_it(tmp_path):
    for _ in range(20):  # others use this machine meanwhile
        state, known = host_facts.state(str(tmp_path)), psutil.virtual_memory()
        free = psutil.disk_usage(str(tmp_path)).free
        off = (state["memory"] - (known.total - known.available), state["disk_free"] - free)
        if max(map(abs, off)) < 1 << 30:
            break
    counted = host_facts.counters()
    assert state["cores"] == psutil.cpu_count()
    assert state["memory_total"] == psutil.virtual_memory().total
    assert max(map(abs, off)) < 1 << 30
    busy = psutil.cpu_times()
    known = busy.user + busy.nice + busy.system + busy.irq + busy.softirq + busy.steal
    assert abs(counted["cpu"] - known) < 0.05 * known + 10
    assert {"received", "sent", "read", "written"} <= set(counted)


def test_a_rate_needs_two_readings_and_a_counter_that_grows():
    rates = Rates()
    told = [rates.rate("a", value, now) for value, now in ((10, 0), (30, 10), (5, 20), (6, 22), (6, 22))]
    assert told == [None, 2.0, None, 0.5, None]


BUSY = """
import os, time
child = os.fork()
print(os.getpid(), flush=True) if child else None
while True:
    sum(range(10000)) if child == 0 else time.sleep(1)
"""


def test_a_ranks_tree_is_its_children_too_and_nobody_elses(python):
    rank, other = python(BUSY), python(BUSY)
    for process in (rank, other):
        process.stdout.readline()
    trees = Trees(os.getpid())
    before = trees.read([rank.pid])[rank.pid]
    children = {child.pid for child in psutil.Process(rank.pid).children(recursive=True)}
    assert {use.pid for use in before} == {rank.pid} | children
    await_use(rank.pid)
    assert trees.read([1 << 30]) == {}
    assert other.pid not in trees._strangers  # ours, though no rank's


def await_use(pid: int) -> None:
    """Wait until a rank is seen to have used a core, however busy this machine is."""
    trees = Trees(os.getpid())

    def ticks() -> int:
        return sum(use.ticks for use in trees.read([pid])[pid])

    before, deadline = ticks(), time.monotonic() + 120
    while ticks() <= before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_with_an_odd_name_is_read(spawn, tmp_path):
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    process = spawn(odd, "600")
    use = read_use(process.pid)
    assert (use.pid, use.parent) == (process.pid, os.getpid())
    assert read_use(1 << 30) is None


def test_a_sample_holds_the_host_the_ranks_and_faults(tmp_path, python, monkeypatch):
    # Hosts of other tests come and go: where no interface is a device, the sum of all may shrink.
    monkeypatch.setattr(host_facts, "network", lambda *_: {"received": 1, "sent": 1})
    rank = python(BUSY)
    rank.stdout.readline()
    path = tmp_path / "a.samples"
    sampler = Sampler(str(path), lambda: {3: rank.pid, 4: 1 << 30}, lambda: {"3.out": 5, "3.err": 2})
    sampler.take({}, {}, [])
    await_use(rank.pid)
    sampler.take({"1": {"utilization": 0.5}}, {3: "1"}, [{"what": "oom_kill", "text": "x"}])
    sampler.tell([])
    sampler.tell([{"what": "xid", "code": 79}])
    first, second, third = map(json.loads, path.read_text().splitlines())
    assert (set(first), set(second), set(third)) == (
        {"time", "host", "ranks"},
        {"time", "host", "ranks", "gpus", "faults"},
        {"time", "faults"},
    )
    assert "cpu" not in first["host"]
    assert {
        "cpu",
        "cores",
        "load",
        "memory",
        "memory_total",
        "disk_free",
        "sent",
        "received",
        "read",
        "written",
    } == set(second["host"])
    (own,) = second["ranks"].values()
    assert set(own) == {"cpu", "memory", "log_bytes", "gpu", "gpu_busy"}
    assert (own["log_bytes"], own["gpu_busy"]) == (7, 0.5)
    assert own["cpu"] > 0
    assert own["memory"] > 5 << 20
    assert sampler.owners[rank.pid] == 3
    assert sys.maxsize > second["time"] >= first["time"]
