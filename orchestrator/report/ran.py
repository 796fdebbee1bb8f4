"""What ran: command, code, shape, in the words of a report."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from orchestrator.report.excerpts import without_secrets

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan
    from orchestrator.rundir import RunDir


def what_ran(run: RunDir, plan: LaunchPlan) -> dict[str, Any]:
    """Return what a run was made of; what is not known is absent."""
    record = run.record()
    what = ["-m", plan.module] if plan.module is not None else [str(plan.script)]
    found = {
        "command": without_secrets(shlex.join([*what, *plan.args])),
        "python": plan.python,
        "workdir": plan.workdir,
        "snapshot": plan.snapshot,
        "job_file": record.get("job_file"),
        "user": record.get("user"),
        "submit_host": record.get("submit_host"),
        "git": record.get("git"),
        "resumes": record.get("resumes"),
        "sweep": record.get("sweep"),
        "point": record.get("point"),
        "slurm_job": run.slurm_job().get("job_id"),
        "orchestrate": record.get("orchestrate"),
        "checkpoint_dir": plan.checkpoint_dir,
        **_shape(plan),
    }
    return {name: value for name, value in found.items() if value not in (None, "", {})}


def _shape(plan: LaunchPlan) -> dict[str, Any]:
    config = plan.deepspeed or {}
    return {
        "backend": plan.backend,
        "launcher": plan.launcher,
        "hosts": len(plan.hosts),
        "ranks": plan.world_size,
        "zero": _zero(config.get("zero_optimization") or {}),
        "precision": _precision(config),
        "batch": config.get("train_batch_size"),
        "micro_batch": config.get("train_micro_batch_size_per_gpu"),
        "accumulation": config.get("gradient_accumulation_steps"),
        "deepspeed": config,
    }


def _zero(zero: dict[str, Any]) -> str:
    if "stage" not in zero:
        return ""
    parts = [f"ZeRO-{zero['stage']}"]
    parts += [f"hpZ {zero[key]}" for key in ("zero_hpz_partition_size",) if zero.get(key, 1) not in (0, 1)]
    parts += ["qwZ"] if zero.get("zero_quantized_weights") else []
    parts += ["qgZ"] if zero.get("zero_quantized_gradients") else []
    offloaded = [
        what
        for what in ("optimizer", "param")
        if (zero.get(f"offload_{what}") or {}).get("device", "none") != "none"
    ]
    return ", ".join([*parts, *(f"{what} offloaded" for what in offloaded)])


def _precision(config: dict[str, Any]) -> str:
    for name in ("bf16", "fp16"):
        section = config.get(name)
        if isinstance(section, dict) and section.get("enabled"):
            return name
    return "fp32" if config else ""
