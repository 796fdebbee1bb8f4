"""The configuration file of `accelerate launch`, always through a DeepSpeed JSON file.

Accelerate 1.15 refuses, in every rank, a configuration that names both a DeepSpeed file and any of the keys
that the file may hold (`DeepSpeedPlugin._deepspeed_config_checks`); even `mixed_precision: "no"` counts. So
nothing of that is written: the DeepSpeed file says it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.hosts import HostPool
    from orchestrator.job.model import Launcher

_FIXED = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "DEEPSPEED",
    "rdzv_backend": "static",
    "main_training_function": "main",
    "use_cpu": False,  # true would switch DeepSpeed off; without GPUs DeepSpeed finds the CPU itself
}


def build(
    ds_config: Mapping[str, Any] | None,
    *,
    ds_config_path: str,
    world_size: int,
    num_machines: int,
    zero3_init: bool | None = None,
    main_process_ip: str | None = None,
    main_process_port: int | None = None,
) -> dict[str, Any]:
    """Return the configuration, ready to be written as YAML; one file serves all hosts.

    The rank of the host is not in it: pass `--machine_rank` on each host.

    Args:
        ds_config: what the DeepSpeed file holds, None when the job has no deepspeed section.
        ds_config_path: where the hosts find that file.
        world_size: number of ranks over all hosts.
        num_machines: number of hosts.
        zero3_init: cut the model up while it is made; default: at stage 3.
        main_process_ip: address of rank 0's host, where it is known.
        main_process_port: port there, where it is known; never 0 (each host would take another one).

    Raises:
        JobFileError: no deepspeed section, or one without ZeRO, which Accelerate does not accept.
    """
    stage = _zero_section(ds_config).get("stage")
    config: dict[str, Any] = _FIXED | {
        "deepspeed_config": {
            "deepspeed_config_file": ds_config_path,
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": stage == 3 if zero3_init is None else zero3_init,
        },
        "num_machines": num_machines,
        "num_processes": world_size,
    }
    address = {"main_process_ip": main_process_ip, "main_process_port": main_process_port}
    return config | {key: value for key, value in address.items() if value is not None}


def _zero_section(ds_config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if ds_config is None:
        what = "launcher accelerate needs a deepspeed section"
        raise JobFileError(
            Problem(what, "train.launcher", "accelerate", "add deepspeed:, or use launcher: torchrun")
        )
    zero = ds_config.get("zero_optimization")
    if not isinstance(zero, dict):
        what = "launcher accelerate needs a ZeRO stage"
        raise JobFileError(Problem(what, "deepspeed.zero_stage", fix="add zero_stage: 0, 1, 2 or 3"))
    return zero


def check_launcher(launcher: Launcher, pool: HostPool) -> list[Problem]:
    """Return what stands against starting these hosts' ranks with this launcher.

    Accelerate starts `num_processes // num_machines` ranks on each host, whatever slots it has.
    """
    counts = {len(host.slots) for host in pool.hosts}
    if launcher != "accelerate" or len(counts) == 1:
        return []
    few, many = (next(h for h in pool.hosts if len(h.slots) == n) for n in (min(counts), max(counts)))
    value = f"{few.name} with {len(few.slots)}, {many.name} with {len(many.slots)}"
    fix = f"set cluster.slots: {len(few.slots)}, or use launcher: torchrun or deepspeed"
    what = "launcher accelerate needs the same number of slots on every host"
    return [Problem(what, "train.launcher", value, fix)]
