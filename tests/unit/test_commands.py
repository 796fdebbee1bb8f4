from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys

import pytest

from orchestrator.agent.checks import visible_devices
from orchestrator.agent.commands import MODULES, NEEDED, launcher_args, wait_for
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
        "--nnodes=3 --node-rank=1 --nproc-per-node=2 --master-addr=fd00::1 "
        "--master-port=29500 --log-dir=/tmp/orchestrate-x --max-restarts=0 --no-python"
    ),
    "deepspeed": (
        "/run/world_info.json --node_rank=1 --master_addr=fd00::1 "
        "--master_port=29500 --no_python --no_local_rank"
    ),
    "accelerate": (
        "--config_file /run/accelerate.yaml --num_machines 3 --num_processes 7 "
        "--machine_rank 1 --main_process_ip fd00::1 --main_process_port 29500 --no_python"
    ),
}


@pytest.mark.parametrize("launcher", EXPECTED)
def test_each_launcher_starts_the_shims_as_plain_programs(launcher):
    args = launcher_args({**CONFIG, "launcher": launcher}, START, SHIM)
    assert args == [*EXPECTED[launcher].split(), *SHIM]
    assert launcher in MODULES
    assert launcher in NEEDED


def test_only_launchers_that_meet_wait_and_never_on_the_first_host():
    waiting = {launcher: wait_for({"launcher": launcher}, START) for launcher in EXPECTED}
    store = ("fd00::1", 29500)
    assert waiting == {"torchrun": store, "deepspeed": None, "accelerate": store}
    assert wait_for({"launcher": "torchrun"}, {**START, "node_rank": 0}) is None


def test_an_unknown_launcher_is_an_error():
    with pytest.raises(KeyError):
        launcher_args({**CONFIG, "launcher": "mpirun"}, START, SHIM)


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
    argv = [sys.executable, agent_file, "late-launch", MODULES["deepspeed"]]
    order = {"args": [str(folder / "world.json"), "--node_rank=1", "train.py"], "env": {}, "wait_for": None}
    process = spawn(*argv, env={"PYTHONPATH": str(folder)}, stdin=subprocess.PIPE)
    said, _ = process.communicate(json.dumps(order) + "\n", timeout=120)
    name, info, *rest = json.loads(said)
    assert (name, rest) == ("deepspeed.launcher.launch", ["--node_rank=1", "train.py"])
    assert json.loads(base64.urlsafe_b64decode(info.removeprefix("--world_info="))) == hosts


def test_a_launcher_that_gets_no_order_runs_nothing(agent_file, folder, spawn):
    (folder / "launcher.py").write_text("def main():\n    print('ran')\n")
    argv = [sys.executable, agent_file, "late-launch", "launcher"]
    process = spawn(*argv, env={"PYTHONPATH": str(folder)}, stdin=subprocess.PIPE)
    assert process.communicate("", timeout=120)[0] == ""
    assert process.returncode == 1


def test_a_launcher_waits_until_the_first_host_answers_and_takes_its_variables(agent_file, folder, spawn):
    (folder / "launcher.py").write_text("import os\ndef main():\n    print(os.environ['SAID'], flush=True)\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        order = {"args": [], "env": {"SAID": "hello"}, "wait_for": ["127.0.0.1", port]}
        argv = [sys.executable, agent_file, "late-launch", "launcher"]
        process = spawn(*argv, env={"PYTHONPATH": str(folder)}, stdin=subprocess.PIPE)
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.7)
        taken.listen()
        assert process.communicate(timeout=120)[0] == "hello\n"
    assert process.returncode == 0


def test_a_launchers_import_is_left_out_of_the_search_for_garbage_and_its_own_objects_are_not(
    agent_file, folder, spawn
):
    told = "print(gc.isenabled(), gc.get_freeze_count() > 0, flush=True)"
    (folder / "launcher.py").write_text(f"import gc\nassert not gc.isenabled()\ndef main():\n    {told}\n")
    argv = [sys.executable, agent_file, "late-launch", "launcher"]
    process = spawn(*argv, env={"PYTHONPATH": str(folder)}, stdin=subprocess.PIPE)
    order = {"args": [], "env": {}, "wait_for": None}
    assert process.communicate(json.dumps(order) + "\n", timeout=120)[0] == "True True\n"


def test_an_unknown_command_of_the_agent_is_told(agent_file, spawn):
    process = spawn(sys.executable, agent_file, "dance", stderr=subprocess.PIPE)
    assert process.communicate(timeout=120)[1] == "agent.pyz: no such command 'dance'\n"
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
