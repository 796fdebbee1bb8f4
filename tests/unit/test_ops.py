"""DeepSpeed's operators: which a job needs, whether a host has them, and who builds them."""

from __future__ import annotations

import copy
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.preflight import judge_ops
from orchestrator.preflight.needs import ops_needed
from orchestrator.preflight.programs.building import telling
from tests.programs import CPU_ADAM, ask, environment, write_programs


def zero(**section: object) -> dict[str, object]:
    return {"zero_optimization": section}


OFFLOAD = {"offload_optimizer": {"device": "cpu"}}
ADAM = {"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, []),
        (ADAM, ["fused_adam"]),
        ({"optimizer": {"type": "Adam", "params": {"torch_adam": True}}}, []),
        ({**ADAM, **zero(**OFFLOAD)}, ["cpu_adam"]),
        (zero(**OFFLOAD), ["cpu_adam"]),
        (zero(cpu_offload=True), ["cpu_adam"]),
        ({**zero(**OFFLOAD), "zero_force_ds_cpu_optimizer": False}, []),
        ({"optimizer": {"type": "Lion"}}, ["fused_lion"]),
        ({"optimizer": {"type": "Lion"}, **zero(**OFFLOAD)}, ["cpu_lion"]),
        ({"optimizer": {"type": "Adagrad"}}, []),
        ({"optimizer": {"type": "Adagrad"}, **zero(**OFFLOAD)}, ["cpu_adagrad"]),
        ({"optimizer": {"type": "Lamb"}}, ["fused_lamb"]),
        ({"optimizer": {"type": "Muon"}}, ["fused_adam"]),
        ({"optimizer": {"type": "SGD"}}, []),
        (zero(offload_param={"device": "nvme"}), ["pin_memory", "async_io"]),
        (
            {**zero(offload_optimizer={"device": "nvme"}), "aio": {"use_gds": True}},
            ["cpu_adam", "pin_memory", "async_io", "gds"],
        ),
        (zero(zero_quantized_weights=True, zero_quantized_gradients=True), ["quantizer"]),
        (zero(zero_quantized_nontrainable_weights=True), ["quantizer"]),
        ({"compile": {"deepcompile": True}}, ["dc"]),
        ({"data_efficiency": {"data_routing": {"random_ltd": {"enabled": True}}}}, ["random_ltd"]),
    ],
)
def test_what_a_configuration_needs_with_gpus(config, expected):
    assert [op.name for op in ops_needed(config, "cuda")] == expected


def test_on_the_cpu_there_is_shared_memory_and_no_quantizer():
    names = [op.name for op in ops_needed({**ADAM, **zero(zero_quantized_weights=True)}, "cpu")]
    assert names == ["deepspeed_shm_comm", "fused_adam"]


def test_the_names_are_those_of_deepspeeds_builders():
    """Every name is one that a builder of the installed DeepSpeed has."""
    import importlib.util
    import re

    root = Path(importlib.util.find_spec("deepspeed").submodule_search_locations[0], "ops/op_builder")
    there = set()
    for path in root.rglob("*.py"):
        there |= set(re.findall(r'^    NAME = "(\w+)"', path.read_text(), re.MULTILINE))
    configs = [
        ADAM,
        {**ADAM, **zero(**OFFLOAD)},
        *(
            {"optimizer": {"type": name}, **more}
            for name in ("Lion", "Lamb", "Adagrad")
            for more in ({}, zero(**OFFLOAD))
        ),
        {**zero(offload_optimizer={"device": "nvme"}, zero_quantized_weights=True), "aio": {"use_gds": True}},
        {
            "compile": {"deepcompile": True},
            "data_efficiency": {"data_routing": {"random_ltd": {"enabled": True}}},
        },
    ]
    names = {op.name for config in configs for device in ("cuda", "cpu") for op in ops_needed(config, device)}
    assert len(names) > 10
    assert names <= there


# -- the program


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return write_programs(tmp_path_factory.mktemp("programs"))


def test_a_cached_operator_and_a_lock_are_seen(programs, tmp_path):
    environ = environment(TORCH_EXTENSIONS_DIR=str(tmp_path))
    own = tmp_path / "cpu_adam"
    assert ask(programs, "ops", CPU_ADAM, env=environ)["ops"]["cpu_adam"]["cached"] is False
    own.mkdir()
    (own / "cpu_adam.so").touch()
    state = ask(programs, "ops", CPU_ADAM, env=environ)["ops"]["cpu_adam"]
    assert (state["cached"], state["locked"], state["folder"]) == (True, None, str(own))
    (own / "lock").touch()
    for path in (own / "cpu_adam.so", own / "lock", own):
        os.utime(path, (time.time() - 4000,) * 2)
    assert ask(programs, "ops", CPU_ADAM, env=environ)["ops"]["cpu_adam"]["locked"] > 3900


def test_without_torch_it_says_so(programs, tmp_path):
    data = ask(programs, "ops", CPU_ADAM, python=(sys.executable, "-I", "-S"), env=environment())
    assert (data["torch"], data["deepspeed"]) == ("", "")


def test_two_folders_on_one_disk_have_keys_of_their_own(programs, tmp_path):
    def key(folder: str) -> str:
        return ask(programs, "ops", CPU_ADAM, env=environment(TORCH_EXTENSIONS_DIR=folder))["disk"]["key"]

    (tmp_path / "link").symlink_to(tmp_path)
    assert key(f"{tmp_path}/a") != key(f"{tmp_path}/b")
    assert key(f"{tmp_path}/a") == key(f"{tmp_path}/link/a")


def test_somebody_elses_lock_is_not_waited_for(programs, tmp_path):
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam/lock").touch()
    environ = environment(TORCH_EXTENSIONS_DIR=str(tmp_path))
    data = ask(programs, "ops", {**CPU_ADAM, "build": ["cpu_adam"]}, env=environ)
    assert "lock is there" in data["built"]["cpu_adam"]["words"][0]
    assert (tmp_path / "cpu_adam/lock").exists()


# DeepSpeed 0.19.8 with torch 2.13, fused_adam without a compiler on the path, shortened.
NO_COMPILER = """\
Using /tmp/x as PyTorch extensions root...
[1/3] c++ -MMD -MF cpu_adam.o.d -c cpu_adam.cpp -o cpu_adam.o
FAILED: cpu_adam.o
/bin/sh: 1: c++: not found
ninja: build stopped: subcommand failed.
Traceback (most recent call last):
  File "x.py", line 1, in <module>
RuntimeError: Error building extension 'cpu_adam'
"""


def test_the_telling_lines_come_before_pythons_traceback():
    assert telling(NO_COMPILER) == [
        "/bin/sh: 1: c++: not found",
        "RuntimeError: Error building extension 'cpu_adam'",
    ]


# -- findings

STATE = {"prebuilt": False, "cached": True, "folder": "/cache/quantizer", "locked": None}
TOOLS = {
    "g++": "12.2.0",
    "ninja": "1.11",
    "nvcc": "12.6",
    "cuda_home": "/cuda",
    "curand": True,
    "libaio": True,
}
DATA = {
    "device": "cuda",
    "torch": "2.13.0+cu126",
    "torch_cuda": "12.6",
    "deepspeed": "0.19.8",
    "folder": "/cache",
    "disk": {"kind": "ext4", "key": "one"},
    "cpu": "EPYC",
    "arch_list": "",
    "tools": TOOLS,
    "ops": {"quantizer": STATE},
    "prebuilt_for": ["cuda", {"version": "2.13", "cuda_version": "12.6"}],
    "built": {},
}


def data(name: str = "quantizer", **changes: object):
    """Return a host's answer; a key of the operator's state, of the tools, or of the answer itself."""
    made = copy.deepcopy(DATA)
    made["ops"] = {name: made["ops"]["quantizer"]}
    for key, value in changes.items():
        if key in STATE:
            made["ops"][name][key] = value
        elif key in TOOLS or key == "compiler":
            made["tools"]["g++" if key == "compiler" else key] = value
        else:
            made[key] = value
    return made


def judged(*hosts):
    made = [SimpleNamespace(name=f"node{i}", probes={"ops": each}) for i, each in enumerate(hosts, 1)]
    case = SimpleNamespace(hosts=made, with_data=lambda probe: {host.name: host for host in made})
    return list(judge_ops.ops(case)), judge_ops.facts(case)["ops"]


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (data(), "ok", ""),
        (data(cached=False), "warn", "is compiled when the run starts"),
        (data(prebuilt=True, cached=False), "ok", ""),
        (
            data(prebuilt=True, prebuilt_for=["cuda", {"version": "2.7"}]),
            "bad",
            "with torch 2.7, here is 2.13",
        ),
        (data(prebuilt=True, torch_cuda="13.0"), "bad", "with CUDA 12.6, here is 13.0"),
        (data(cached=False, prebuilt=True, prebuilt_for=["cpu", {}]), "warn", "is compiled when"),
        (data(ninja=""), "bad", "loads it only with ninja"),
        (data(compiler=""), "ok", ""),
        (data(cached=False, compiler=""), "bad", "cannot be compiled without a C++ compiler"),
        (data(cached=False, nvcc="", curand=False), "bad", "without nvcc"),
        (data(cached=False, curand=False), "bad", "without curand"),
        (data("async_io", cached=False, libaio=False), "bad", "without libaio.h"),
        (data("cpu_adam", cached=False, nvcc=""), "warn", "is compiled when"),
        (data(cached=False, device="cpu", nvcc=""), "warn", "is compiled when"),
        (data(cached=False, nvcc="12.1"), "warn", "is compiled when"),
        (data(cached=False, nvcc="11.8"), "bad", "nvcc is 11.8"),
        (data(arch_list="9.0a"), "bad", "takes 9.0a for a number"),
        (data(arch_list="8.0 9.0+PTX;10.0"), "ok", ""),
        (data("cpu_adam", arch_list="9.0a"), "ok", ""),
        (data(cached=False, locked=5.0), "warn", "somebody is compiling it"),
        (data(cached=False, locked=4000.0), "bad", "left over: nothing written there for 67 min"),
        (
            data(cached=False, built={"quantizer": {"ok": False, "seconds": 3.0, "words": ["a: error: b"]}}),
            "bad",
            "a: error: b",
        ),
    ],
)
def test_what_is_said_of_one_operator(answer, level, words):
    found, _ = judged(answer)
    assert found[0].level == level
    assert words in found[0].what
    assert bool(found[0].fix) == (level != "ok")


def test_hosts_that_share_a_folder_build_once():
    own = {"kind": "ext4", "key": "other"}
    hosts = {
        "node1": data(cached=False, compiler=""),  # cannot
        "node2": data(cached=False),
        "node3": data(cached=False),  # shares node2's folder
        "node4": data(cached=False, disk=own),
        "node5": data(disk=own),  # has it
    }
    assert judge_ops.to_build(hosts) == {"node2": ["quantizer"], "node4": ["quantizer"]}


def test_sharing_hosts_are_told_of_the_wait_and_of_other_processors():
    found, facts = judged(data(cached=False), data(cached=False), data(cached=False, cpu="Xeon"))
    assert "3 hosts share the folder" in found[0].what
    assert [each.host for each in found if "Xeon here, EPYC on node1" in each.what] == ["node3"]
    assert facts.startswith("quantizer: not compiled on all 3 hosts")
    assert "share the folder" in facts


def test_a_host_that_was_lost_while_it_built_is_told():
    """Of two operators it was to build, one is there."""
    answer = data(cached=False)
    answer["ops"]["fused_adam"] = {**STATE, "folder": "/cache/fused_adam"}
    found, _ = judged(judge_ops.not_built(answer, ["quantizer", "fused_adam"], "no answer in 1200 s"))
    assert [(each.level, each.what) for each in found] == [
        ("bad", "quantizer could not be built: no answer in 1200 s")
    ]


def test_facts_tell_what_was_built_and_how_long_it_took():
    _, facts = judged(data(built={"quantizer": {"ok": True, "seconds": 31.4, "words": []}}))
    assert facts == "quantizer: compiled already on node1; quantizer built on node1 in 31 s"


def test_a_job_without_deepspeed_needs_nothing():
    assert judge_ops.request(None)["ops"] == {}
    assert judge_ops.request(ADAM, ["fused_adam"])["ops"]["cpu"] == ["deepspeed_shm_comm", "fused_adam"]
