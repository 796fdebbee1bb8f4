"""Findings from captured answers: what one host says, and what it says beside the others."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.preflight.case import Case
from orchestrator.preflight.findings import Finding, Host
from orchestrator.preflight.judging import JUDGES, ON_DEMAND, PROGRAMS, judge
from orchestrator.preflight.values import HostAnswer
from tests.checked import DISK, GPUS, SOFTWARE, case


def last(count: int = 3, **changes: Any) -> list[Finding]:
    """Return what all checks find wrong with the last of some hosts, and see that the others are well."""
    report = judge(case(count, **changes), tuple(JUDGES))
    wrong = [each for each in report.findings if each.level in ("warn", "bad")]
    assert {each.host for each in wrong} <= {f"h{count - 1}"}
    return wrong


def test_hosts_that_are_well():
    report = judge(case(), tuple(JUDGES))
    assert report.ok
    assert set(report.levels().values()) == {"ok"}
    assert {check for _, check in report.levels()} == set(JUDGES) - ON_DEMAND - PROGRAMS
    assert report.facts["GPUs"] == "1 x NVIDIA H200 (140 GiB) on all 3 hosts"
    assert report.facts["driver"] == "580.159.04 (CUDA 13.0) on all 3 hosts"
    assert report.facts["master"] == "h0 at 10.0.0.1, through eth0 on all 3 hosts"


WRONG = {
    "clock-warn": ({"clock": (-2.5, 0.1)}, "clock", "warn", "its clock is 2.5 s behind the submit host's"),
    "clock-bad": ({"clock": (90.0, 0.1)}, "clock", "bad", "its clock is 90.0 s ahead of the submit host's"),
    "port": ({"tried": {"10.0.0.1": {"failure": "Connection refused"}}}, "master", "bad", "cannot reach"),
    "leftovers": (
        {"leftovers": {"count": 2, "processes": [{"run": "a-1", "pid": 7}, {"run": "a-1", "pid": 8}]}},
        "leftovers",
        "warn",
        "2 processes of other runs are there (a-1; pids 7, 8)",
    ),
    "torch": (
        {"software": {"packages": {**SOFTWARE["packages"], "torch": "2.10.0"}}},
        "versions",
        "bad",
        "has torch 2.10.0; most hosts have 2.11.0",
    ),
    "no numpy": (
        {"software": {"packages": {"torch": "2.11.0", "transformers": "5.17.0", "accelerate": "1.15.0"}}},
        "versions",
        "warn",
        "has no numpy; most hosts have 2.5.2",
    ),
    "python minor": (
        {"software": {"python": "3.11.9"}},
        "versions",
        "bad",
        "has python 3.11; most hosts have 3.12",
    ),
    "python patch": ({"software": {"python": "3.12.9"}}, "versions", "warn", "has python 3.12.9; most"),
    "no gpu": ({"gpus": {"count": 0, "gpus": []}}, "gpus", "bad", "no GPU is visible here"),
    "driver": ({"gpus": {"failure": "nvidia-smi ended with 9"}}, "gpus", "bad", "nvidia-smi ended with 9"),
    "torch cpu": ({"software": {"torch_cuda": None}}, "gpus", "bad", "torch 2.11.0 is built without CUDA"),
    "old driver": ({"gpus": {"cuda": "12.8"}}, "gpus", "bad", "torch is built for CUDA 13.0 and the driver"),
    "memory": (
        {"machine": {"available": 1 << 30}},
        "memory",
        "warn",
        "1.0 GiB of 126 GiB memory is available",
    ),
    "less": (
        {"machine": {"memory": 1 << 36}},
        "memory",
        "warn",
        "has 64 GiB of memory; most hosts have 126 GiB",
    ),
    "files": (
        {"machine": {"files": 256}},
        "limits",
        "warn",
        "a process may open 256 files; 6 ranks may need 524",
    ),
    "unseen": (
        {"seen": False},
        "shared",
        "bad",
        "it reads /x/run, but what it writes there is not seen here",
    ),
    "full": (
        {"disks": {"folders": {"run": {**DISK, "free": 0}}}},
        "disk",
        "bad",
        "the run directory (/x/run): 0 B",
    ),
    "inodes": (
        {"disks": {"folders": {"run": {**DISK, "files": 0}}}},
        "disk",
        "bad",
        "the run directory (/x/run): no",
    ),
    "mount": (
        {"disks": {"folders": {"run": {**DISK, "existing": "/"}}}},
        "disk",
        "warn",
        "the run directory: /x is there on most hosts, and here only /",
    ),
    "nvme": (
        {"nvme": {"folders": {"/nvme": {"write": 0.8e9, "read": 0.9e9}}}},
        "nvme",
        "warn",
        "/nvme: writes 800 MB/s, reads 900 MB/s; the median of hosts is 2.5 GB/s",
    ),
    "interface": ({"network": {"interfaces": ["lo"]}}, "interface", "bad", "it has no eth0, only lo"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_values_and_a_fix(name):
    changes, check, level, what = WRONG[name]
    found = last(**changes)
    assert [(each.check, each.level) for each in found] == [(check, level)]
    assert found[0].what.startswith(what)
    assert found[0].fix


def gpu(**changes: str) -> dict[str, Any]:
    return {"gpus": {"gpus": [GPUS["gpus"][0] | changes]}}


def test_gpus_that_are_broken_or_in_use():
    used = gpu(**{"memory.used": "21099"})
    used["gpus"]["processes"] = [
        {"gpu_uuid": GPUS["gpus"][0]["uuid"], "pid": "438", "used_memory": "21090", "process_name": "python3"}
    ]
    assert last(**used)[0].what == "GPU 0 is in use: 21 GiB of 140 GiB by pid 438 python3"
    ecc = last(**gpu(**{"ecc.errors.uncorrected.volatile.total": "3"}))
    assert ecc[0].what == "GPU 0 had 3 uncorrected memory errors since its driver was loaded"
    pending = copy.deepcopy(GPUS["remapped"])
    pending[0]["remapped_rows.pending"] = "Yes"
    assert "reset it" in last(gpus={"remapped": pending})[0].fix
    pending[0]["remapped_rows.failure"] = "Yes"
    assert "have it replaced" in last(gpus={"remapped": pending})[0].fix
    other = last(**gpu(name="NVIDIA A100"))
    assert (other[0].level, "most hosts have 1 x NVIDIA H200" in other[0].what) == ("warn", True)


def test_a_gpu_that_the_job_does_not_use_may_be_busy():
    rows = [GPUS["gpus"][0], GPUS["gpus"][0] | {"index": "7", "memory.used": "99999"}]
    found = judge(case(1, gpus={"count": 2, "gpus": rows}), ("gpus",))
    assert found.ok


def test_only_gpus_that_are_visible_to_the_job_are_judged():
    rows = [GPUS["gpus"][0] | {"index": str(n), "uuid": f"GPU-{n}"} for n in range(4)]
    rows[0] |= {"memory.used": "99999"}
    rows[3] |= {"memory.used": "99999"}
    for visible in ("1,2", "GPU-1, GPU-2"):
        assert judge(case(1, gpus={"count": 4, "gpus": rows, "visible": visible}), ("gpus",)).ok
    found = judge(case(1, gpus={"count": 4, "gpus": rows, "visible": "2,3,1"}), ("gpus",))
    assert [each.what[:16] for each in found.findings if each.level == "bad"] == ["GPU 3 is in use:"]


def test_ranks_on_the_cpu_need_no_gpu():
    variables = {"variables": {"DS_ACCELERATOR": "cpu"}, "torch_cuda": None}
    assert judge(case(1, software=variables), ("gpus",)).ok


def test_clocks_that_may_be_right_are_not_blamed():
    assert last(clock=(5.0, 4.5)) == []


def test_a_probe_that_failed_fails_the_checks_that_need_it():
    report = judge(case(errors={"disks": "no answer in 20 s"}), tuple(JUDGES))
    assert report.bad == ("h2",)
    assert Finding("h2", "disk", "bad", "the probe failed: no answer in 20 s") in report.findings


def test_a_taken_port_is_the_masters_fault():
    broken = case()
    first = replace(broken.hosts[0], ready={"port": "train.master_port 29500 is not free here: in use"})
    report = judge(replace(broken, hosts=(first, *broken.hosts[1:])), ("master",))
    assert report.bad == ("h0",)


def test_the_address_of_most_is_the_masters():
    ways = {"10.0.0.1": {"failure": "no route"}, "192.168.0.1": {"interface": "eth1"}}
    both = {"10.0.0.1": {"interface": "eth0"}, "192.168.0.1": {"interface": "eth1"}}
    made = case()
    hosts = tuple(replace(host, tried=both if i < 2 else ways) for i, host in enumerate(made.hosts))
    report = judge(replace(made, hosts=hosts), ("master",))
    assert (report.ok, report.facts["master"][:18]) == (True, "h0 at 192.168.0.1,")


def silent(code: int | None, words: str = "", backend: str = "pdsh", setup: str = "") -> dict[str, str]:
    """Return what `login` says of a host whose command ended so, without a word of the probes."""
    whole = case(1)
    host = Host(whole.hosts[0].plan, HostAnswer("h0", code, words.splitlines(), words, 1.0))
    plan = replace(whole.plan, backend=backend, python="/opt/thing", setup=(setup,) if setup else ())
    found = judge(Case(plan, whole.spec, (host,)), ("login",)).findings
    return {each.check: f"{each.level} {each.what} | {each.fix}" for each in found}


def test_setup_may_have_ended_it_too():
    found = silent(3, setup="exit 3")
    assert "a line of train.setup, or train.python /opt/thing, ended with 3" in found["job"]
    assert "see whether a line of train.setup exits" in found["job"]


@pytest.mark.parametrize("code", [0, 1, 126, 127, -11])
def test_a_python_that_is_none_is_no_trouble_of_the_login(code):
    found = silent(code, "/opt/thing: line 2: oops")
    assert found["login"].startswith("ok")
    assert f"train.python /opt/thing ended with {code} in place of running a program: /opt" in found["job"]
    assert "set train.python" in found["job"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (255, "anything"),
        (None, "no answer in 60 s"),
        (97, ""),
        (1, "Permission denied"),
        (127, "cannot start x"),
    ],
)
def test_what_keeps_us_out_is_not_blamed_on_the_python(code, words):
    found = silent(code, words)
    assert list(found) == ["login"]
    assert found["login"].startswith("bad")


def test_what_srun_says_is_not_blamed_on_the_python_but_silence_is():
    assert list(silent(1, "srun: error: no step", "slurm")) == ["login"]
    assert list(silent(0, "", "slurm")) == ["login", "job"]
