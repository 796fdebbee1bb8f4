from __future__ import annotations

import base64
import json
import os
import sys

import pytest

from orchestrator.agent.checks import visible_devices
from orchestrator.agent.commands import MODULES, training_command
from orchestrator.agent.launch import launcher_environment

CONFIG = {
    "python": "/venv/bin/python",
    "scratch": "/tmp/orchestrate-x",
    "agent_file": "/run/agent.pyz",
    "world_info": "/run/world_info.json",
    "accelerate_config": "/run/accelerate.yaml",
}
START = {
    "run_id": "job-abcd",
    "node_rank": 1,
    "nnodes": 3,
    "world_size": 7,
    "local_world_size": 2,
    "master_addr": "fd00::1",
    "master_port": 29500,
    "devices": "2,3",
    "interface": "eth0",
}
SHIM = ["/venv/bin/python", "/run/agent.pyz", "rank", "c.json", "--", "train.py", "--flag=it's"]
EXPECTED = {
    "torchrun": (
        "/run/agent.pyz late-launch torch.distributed.run fd00::1 29500 1 "
        "--nnodes=3 --node-rank=1 --nproc-per-node=2 --master-addr=fd00::1 "
        "--master-port=29500 --log-dir=/tmp/orchestrate-x --max-restarts=0 --no-python"
    ),
    "deepspeed": (
        "/run/agent.pyz deepspeed-launch /run/world_info.json --node_rank=1 --master_addr=fd00::1 "
        "--master_port=29500 --no_python --no_local_rank"
    ),
    "accelerate": (
        "/run/agent.pyz late-launch accelerate.commands.launch fd00::1 29500 1 "
        "--config_file /run/accelerate.yaml --num_machines 3 --num_processes 7 "
        "--machine_rank 1 --main_process_ip fd00::1 --main_process_port 29500 --no_python"
    ),
}


@pytest.mark.parametrize("launcher", EXPECTED)
def test_each_launcher_starts_the_shims_as_plain_programs(launcher):
    command = training_command({**CONFIG, "launcher": launcher}, START, SHIM)
    assert command == ["/venv/bin/python", *EXPECTED[launcher].split(), *SHIM]
    assert launcher in MODULES


def test_an_unknown_launcher_is_an_error():
    with pytest.raises(KeyError):
        training_command({**CONFIG, "launcher": "mpirun"}, START, SHIM)


FAKE_LAUNCH = """
import json, sys
def main():
    print(json.dumps(sys.argv))
"""


def test_deepspeeds_launcher_gets_the_world_info_from_a_file(agent_file, folder, spawn):
    """Ten thousand hosts do not fit into one argument (128 KiB, execve(2)): they come by a file."""
    package = folder / "deepspeed" / "launcher"
    package.mkdir(parents=True)
    for path, text in (("__init__.py", ""), ("launch.py", FAKE_LAUNCH)):
        (package / path).write_text(text)
    (package.parent / "__init__.py").touch()
    hosts = {f"node{number:05}": list(range(8)) for number in range(10_000)}
    (folder / "world.json").write_text(json.dumps(hosts))
    argv = [
        sys.executable,
        agent_file,
        "deepspeed-launch",
        folder / "world.json",
        "--node_rank=1",
        "train.py",
    ]
    said, _ = spawn(*argv, env={"PYTHONPATH": str(folder)}).communicate(timeout=20)
    name, info, *rest = json.loads(said)
    assert (name, rest) == ("deepspeed.launcher.launch", ["--node_rank=1", "train.py"])
    assert json.loads(base64.urlsafe_b64decode(info.removeprefix("--world_info="))) == hosts


def test_an_unknown_command_of_the_agent_is_told(agent_file, spawn):
    import subprocess

    process = spawn(sys.executable, agent_file, "dance", stderr=subprocess.PIPE)
    assert process.communicate(timeout=20)[1] == "agent.pyz: no such command 'dance'\n"
    assert process.returncode == 2


def test_the_launchers_environment_names_the_interface_and_shares_the_cores():
    added = launcher_environment({}, START)
    cores = len(os.sched_getaffinity(0))
    assert added == {
        "OMP_NUM_THREADS": str(max(1, cores // 2)),
        "PYTHONUNBUFFERED": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_SOCKET_IFNAME": "=eth0",
        "MASTER_ADDR": "fd00::1",
        "MASTER_PORT": "29500",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "LOCAL_SIZE": "2",
    }


def test_what_the_user_has_set_stays():
    theirs = {
        "OMP_NUM_THREADS": "3",
        "GLOO_SOCKET_IFNAME": "ib0",
        "NCCL_SOCKET_IFNAME": "ib",
        "NCCL_HOSTID": "x",
    }
    added = launcher_environment(theirs, {**START, "simulated": True})
    assert not set(added) & set(theirs)


def test_simulated_hosts_are_hosts_of_their_own_for_nccl():
    assert launcher_environment({}, {**START, "simulated": True})["NCCL_HOSTID"] == "job-abcd-1"
    assert "NCCL_HOSTID" not in launcher_environment({}, START)
    assert "GLOO_SOCKET_IFNAME" not in launcher_environment({}, {**START, "interface": ""})


@pytest.mark.parametrize(
    ("given", "devices", "visible"),
    [
        (None, [0, 3], "0,3"),
        ("4,5,6,7", [0, 3], "4,7"),
        (" GPU-a, GPU-b ", [1], "GPU-b"),
        ("", [0, 1], ""),
        ("-1", [0, 1], "-1"),
        ("2,3,-1,5", [1], "3"),
    ],
)
def test_slots_are_indexes_into_the_devices_that_the_host_shows(given, devices, visible):
    environ = {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
    assert visible_devices(environ, devices) == visible
