"""The command line of each training launcher on one host. Pure: a test compares them as lists."""

from __future__ import annotations

from typing import Any

MODULES = {
    "torchrun": "torch.distributed.run",
    "deepspeed": "agent.deepspeed_launch",
    "accelerate": "accelerate.commands.launch",
}
"""What late_launch.py imports and runs for each launcher."""

NEEDED = {"torchrun": "torch", "deepspeed": "deepspeed", "accelerate": "accelerate"}
"""What the host's python must be able to import for each launcher."""


def launcher_args(config: dict[str, Any], start: dict[str, Any], shim: list[str]) -> list[str]:
    """Return the launcher's arguments on this host.

    Args:
        config: the agent's configuration (launcher, world_info, accelerate_config, scratch).
        start: the supervisor's start message (node_rank, nnodes, world_size, local_world_size,
            master_addr, master_port).
        shim: what each rank has to run; all three launchers start it as a plain program.

    Raises:
        KeyError: no such launcher.
    """
    return _ARGS[config["launcher"]](config, start) + shim


def wait_for(config: dict[str, Any], start: dict[str, Any]) -> tuple[str, int] | None:
    """Return what must answer before this host's launcher runs; None for nothing."""
    if start["node_rank"] == 0 or config["launcher"] == "deepspeed":
        return None  # DeepSpeed's launchers do not meet: its ranks do, much later
    return start["master_addr"], int(start["master_port"])


def _torchrun(config: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [
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
        config["world_info"],
        f"--node_rank={start['node_rank']}",
        f"--master_addr={start['master_addr']}",
        f"--master_port={start['master_port']}",
        "--no_python",
        "--no_local_rank",
    ]


def _accelerate(config: dict[str, Any], start: dict[str, Any]) -> list[str]:
    return [
        *("--config_file", config["accelerate_config"]),
        *("--num_machines", str(start["nnodes"])),
        *("--num_processes", str(start["world_size"])),
        *("--machine_rank", str(start["node_rank"])),
        *("--main_process_ip", start["master_addr"]),
        *("--main_process_port", str(start["master_port"])),
        "--no_python",
    ]


_ARGS = {"torchrun": _torchrun, "deepspeed": _deepspeed, "accelerate": _accelerate}
