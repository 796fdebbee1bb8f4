"""The command line of each training launcher on one host. Pure: a test compares them as lists."""

from __future__ import annotations

from typing import Any


def training_command(config: dict[str, Any], start: dict[str, Any], shim: list[str]) -> list[str]:
    """Return the argv that starts this host's ranks.

    Args:
        config: the agent's configuration (launcher, python, rendered, agent_file).
        start: the supervisor's start message (node_rank, nnodes, world_size, local_world_size,
            master_addr, master_port).
        shim: what each rank has to run; all three launchers start it as a plain program.

    Raises:
        KeyError: no such launcher.
    """
    return _COMMANDS[config["launcher"]](config, start) + shim


def _late(config: dict[str, Any], start: dict[str, Any], module: str) -> list[str]:
    where = [start["master_addr"], str(start["master_port"]), str(start["node_rank"])]
    return [config["python"], config["agent_file"], "late-launch", module, *where]


def _torchrun(config: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [
        *_late(config, start, "torch.distributed.run"),
        f"--nnodes={start['nnodes']}",
        f"--node-rank={start['node_rank']}",
        f"--nproc-per-node={start['local_world_size']}",
        f"--master-addr={start['master_addr']}",
        f"--master-port={start['master_port']}",
        f"--log-dir={config['scratch']}",  # else a folder of its own in /tmp, which it never removes
        "--max-restarts=0",
        "--no-python",
    ]


def _deepspeed(config: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [
        *(config["python"], config["agent_file"], "deepspeed-launch", config["world_info"]),
        f"--node_rank={start['node_rank']}",
        f"--master_addr={start['master_addr']}",
        f"--master_port={start['master_port']}",
        "--no_python",
        "--no_local_rank",
    ]


def _accelerate(config: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [
        *_late(config, start, "accelerate.commands.launch"),
        *("--config_file", config["accelerate_config"]),
        *("--num_machines", str(start["nnodes"])),
        *("--num_processes", str(start["world_size"])),
        *("--machine_rank", str(start["node_rank"])),
        *("--main_process_ip", start["master_addr"]),
        *("--main_process_port", str(start["master_port"])),
        "--no_python",
    ]


_COMMANDS = {"torchrun": _torchrun, "deepspeed": _deepspeed, "accelerate": _accelerate}

MODULES = {"torchrun": "torch", "deepspeed": "deepspeed", "accelerate": "accelerate"}
"""What the host's python must be able to import for each launcher."""
