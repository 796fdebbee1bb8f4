"""Offload that the ZeRO stage does not have, or that lacks its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.configs.fields import ZERO
from orchestrator.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.configs.merge import Origins
    from orchestrator.job.deepspeed_spec import DeepSpeedSpec


_OLD = {"offload_optimizer": "cpu_offload", "offload_param": "cpu_offload_param"}
"""Names of before 0.4, which DeepSpeed 0.19.8 still reads: `true` is the CPU."""


def offload_device(zero: Mapping[str, Any], name: str) -> str:
    """Return where `offload_optimizer` or `offload_param` moves to: cpu, nvme, auto or none.

    Args:
        zero: section `zero_optimization`.
        name: one of the two.
    """
    section = zero.get(name)
    device = section.get("device") if isinstance(section, dict) else None
    return str(device or ("cpu" if zero.get(_OLD[name]) is True else "none"))


def offload_problems(config: Mapping[str, Any], spec: DeepSpeedSpec, origins: Origins) -> Iterator[Problem]:
    """Yield a problem for each offload that the stage does not have, or that lacks its path.

    Source: `runtime/engine.py` and `runtime/zero/offload_config.py` of DeepSpeed 0.19.8.

    Args:
        config: the configuration.
        spec: section `deepspeed` of the job file.
        origins: where the configuration's values are written.
    """
    zero = config.get(ZERO)
    zero = zero if isinstance(zero, dict) else {}
    for name in ("offload_optimizer", "offload_param"):
        section = zero.get(name)
        section = section if isinstance(section, dict) else {}
        where = origins.where((ZERO, name, "device")) if "device" in section else f"deepspeed.{name}"
        path = getattr(spec, f"{name}_nvme_path")
        yield from _problems(name, section, zero.get("stage", 0), path, where)


def _problems(name: str, section: Mapping[str, Any], stage: Any, path: Any, where: str) -> Iterator[Problem]:
    device = section.get("device", "none")
    least = 3 if name == "offload_param" or device == "nvme" else 1
    if device in ("cpu", "nvme") and isinstance(stage, int) and stage < least:
        what = f"{name} to {device} needs ZeRO stage {least}, the stage is {stage}"
        yield Problem(what, where, fix=f"set zero_stage: {least}, or {name}: none")
    if device == "nvme" and not section.get("nvme_path"):
        said = where == f"deepspeed.{name}"
        key = f"{name}_nvme_path" if said else "nvme_path"
        what = "offload to nvme needs a path" if said else f"{name} to nvme needs a path"
        yield Problem(what, where, fix=f"add {key}: /local/nvme")
    if path is not None and device not in ("nvme", "auto"):
        fix = f"set {name}: nvme, or remove the path"
        yield Problem(f"is given, but {name} is {device}", f"deepspeed.{name}_nvme_path", str(path), fix)
