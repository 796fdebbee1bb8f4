"""Hosts as `check` sees them: captured answers of one that is well, and cases made of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.job import JobSpec
from orchestrator.preflight.case import Case
from orchestrator.preflight.findings import Host
from orchestrator.preflight.values import HostAnswer
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
