"""Findings from captured answers: what one host says, and what it says beside the others."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job import JobSpec
from orchestrator.preflight.fanout import HostAnswer
from orchestrator.preflight.findings import (
    Finding,
    Host,
    Report,
    fold_values,
    read_answers,
    reference,
    size_text,
)
from orchestrator.preflight.judging import JUDGES, ON_DEMAND, PROGRAMS, Case, judge, probes_for
from orchestrator.preflight.probes.catalogue import PROBES
from orchestrator.preflight.table import table_lines
from tests.samples import plan, pool

# As a host with one H200 (nvidia-smi 580.159, torch 2.11) answered.
GPUS = {
    "count": 1,
    "cuda": "13.0",
    "gpus": [
        {
            "index": "0",
            "uuid": "GPU-aabb59c4-b036-6b88-72b1-ac491fab8292",
            "name": "NVIDIA H200",
            "memory.total": "143771",
            "memory.used": "0",
            "driver_version": "580.159.04",
            "ecc.errors.uncorrected.volatile.total": "0",
            "retired_pages.pending": "[N/A]",
            "utilization.gpu": "0",
        }
    ],
    "visible": None,
    "processes": [],
    "remapped": [
        {
            "gpu_uuid": "GPU-aabb59c4-b036-6b88-72b1-ac491fab8292",
            "remapped_rows.pending": "No",
            "remapped_rows.failure": "No",
        }
    ],
}
SOFTWARE = {
    "python": "3.12.3",
    "executable": "/opt/torch/.venv/bin/python3",
    "packages": {"torch": "2.11.0", "transformers": "5.17.0", "numpy": "2.5.2", "accelerate": "1.15.0"},
    "torch_cuda": "13.0",
    "variables": {"CUDA_HOME": "/usr/local/cuda", "HOME": "/root"},
}
MACHINE = {
    "hostname": "vm",
    "cpus": 16,
    "memory": 135148564480,
    "available": 134605385728,
    "memory_limit": 137438953472,
    "files": 20000,
    "locked": -1,
    "infiniband": False,
}
DISK = {"path": "/x/run", "existing": "/x", "free": 1 << 36, "files": 1 << 20, "writable": "", "device": 5}
WELL: dict[str, dict[str, Any]] = {
    "job": {"problems": []},
    "software": SOFTWARE,
    "gpus": GPUS,
    "machine": MACHINE,
    "network": {"interfaces": ["lo", "eth0"], "addresses": {"10.0.0.1": "eth0"}},
    "leftovers": {"processes": [], "count": 0},
    "shared": {"sees": True, "folder": "/x/run"},
    "disks": {"folders": {"run": DISK}},
    "nvme": {"folders": {"/nvme": {"write": 2.5e9, "read": 5e9, "bytes": 1 << 28, "direct": True}}},
}
SPEC = JobSpec.model_validate(
    {"cluster": {"backend": "local", "nodes": 1, "slots": 1}, "train": {"script": "t.py"}},
    context={"base_dir": Path("/x")},
)


def case(count: int = 3, **changes: dict[str, Any]) -> Case:
    """Return hosts h0, h1, …, all well; `changes` are for the last: data of a probe, or fields of Host."""
    names = pool("".join(f"h{number} slots=2\n" for number in range(count)))
    made = plan(names, backend="pdsh", interface="eth0")
    hosts = []
    for planned in made.hosts:
        answer = HostAnswer(planned.name, 0, [], "", 1.0)
        tried = {"10.0.0.1": {"interface": "eth0", "own": "10.0.0.2"}}
        ready = {"addresses": [["10.0.0.1", "eth0"]], "port": 29500}
        host = Host(
            planned, answer, copy.deepcopy(WELL), clock=(0.001, 0.01), tried=tried, ready=ready, seen=True
        )
        hosts.append(host)
    fields = {name: value for name, value in changes.items() if name not in WELL}
    probes = {name: {**hosts[-1].probes[name], **value} for name, value in changes.items() if name in WELL}
    hosts[-1] = replace(hosts[-1], probes={**hosts[-1].probes, **probes}, **fields)  # type: ignore[arg-type]
    return Case(made, SPEC, tuple(hosts))


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


# -- ways of telling


def test_lines_of_a_host():
    lines = [
        "Welcome to the cluster",
        'ORCH-CHECK {"probe":"a","data":{"x":1},"seconds":0.1}',
        'ORCH-CHECK {"probe":"b","error":"OSError: no"}',
        'ORCH-CHECK {"probe":"c","da',
        "ORCH-CHECK 7",
        'ORCH-CHECK {"link":"h1"}',
    ]
    assert read_answers(lines) == ({"a": {"x": 1}}, {"b": "OSError: no"}, [{"link": "h1"}])


def test_values_are_folded_with_outliers_named():
    hosts = [f"node{i}" for i in range(1, 33)]
    same = dict.fromkeys(hosts, "2.13.0")
    assert fold_values(same, hosts) == "2.13.0 on all 32 hosts"
    assert fold_values(same | {"node7": "2.12.1"}, hosts) == "2.13.0 on 31 hosts, 2.12.1 on node7"
    assert fold_values({"a": "1"}, ["a"]) == "1 on a"
    assert fold_values({}, hosts) == ""


@given(st.dictionaries(st.text(min_size=1), st.sampled_from("abc"), min_size=1))
def test_the_usual_value_is_one_that_no_other_outnumbers(values):
    counts = [sum(other == value for other in values.values()) for value in values.values()]
    usual = reference(values)
    assert sum(value == usual for value in values.values()) == max(counts)


def test_sizes():
    assert [size_text(n) for n in (0, 1023, 1024, 20 << 20, 3 << 39)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "20 MiB",
        "1.5 TiB",
    ]


def test_every_check_gets_its_probes():
    assert set(probes_for(tuple(JUDGES))) == set(PROBES) - {"sweep"}
    assert probes_for(("login", "clock")) == ()


def shown(report: Report) -> list[str]:
    import click

    return [click.unstyle(line) for line in table_lines(report)]


def test_the_table_folds_hosts_and_names_bad_ones():
    report = judge(case(32, gpus={"count": 0, "gpus": []}), ("login", "gpus"))
    lines = shown(report)
    assert lines[:3] == [
        "hosts    login  gpus",
        "h[0-30]  ok     ok",
        "h31      ok     BAD",
    ]
    assert "BAD   h31: gpus: no GPU is visible here" in lines
    assert lines[-1].startswith("1 of 32 hosts would fail a run")


def test_the_report_for_scripts_is_json():
    document = json.loads(json.dumps(judge(case(2, seen=False), ("shared",)).to_json()))
    assert (document["ok"], document["bad"], document["checks"]) == (False, ["h1"], ["login", "shared"])
    assert document["hosts"]["h1"] == {"login": "ok", "shared": "bad"}
    assert document["findings"][0]["fix"]
