"""Make the plan of a job: examine it, count its model, predict, and have the installed classes look at it."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError, Problem
from orchestrator.estimate import World, resolve_hardware, settings_of, shape_of, suggest
from orchestrator.forecast.document import Checked, PlanDocument
from orchestrator.forecast.estimates import Estimates, estimates
from orchestrator.forecast.examine import Examination
from orchestrator.forecast.wishes import assumptions, wishes
from orchestrator.forecast.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.configs.verify import Running
    from orchestrator.estimate import ModelShape
    from orchestrator.huggingface import Counting
    from orchestrator.job import JobSpec, LoadedJob

_VERIFY_SECONDS = 120.0  # importing torch and DeepSpeed from a cold network disk takes a minute


@dataclass(frozen=True)
class Wanted:
    """What the user asked of a plan.

    Attributes:
        quick: start no process: do not read `model.config`, do not ask the installed classes.
        suggest: rank the settings that fit.
        points: points of the sweep that this job is the first of; 0 for a single run.
    """

    quick: bool = False
    suggest: bool = False
    points: int = 0


def make_plan(job: LoadedJob, environ: Mapping[str, str], wanted: Wanted) -> PlanDocument:
    """Return the plan of a job; errors of the job are findings in it.

    Args:
        job: the job file, of one point if it is a sweep.
        environ: where the values of `train.secrets` come from.
        wanted: what to do and what to leave out.
    """
    examined = Examination(job, environ)
    with ExitStack() as started:
        counting = None if wanted.quick else _start_count(job, examined)
        if counting is not None:
            started.callback(counting.close)
        examined.run()
        running = None if wanted.quick or not examined.config else _start_verify(examined)
        if running is not None:
            started.callback(running.close)
        made = _estimates(examined, _shape(job, examined, counting))
        checked = _verified(running, examined)  # its findings are the document's too
        counted = {} if counting is None or not counting.seconds else {"model.config": counting.seconds}
        return replace(_document(examined, made, wanted), checked=checked, seconds=counted)


def _document(examined: Examination, made: Estimates | None, wanted: Wanted) -> PlanDocument:
    spec = examined.job.spec
    suggestions = None
    if wanted.suggest and made is not None:
        suggestions = suggest(made.shape, made.settings, made.world, made.hardware)
    return PlanDocument(
        str(examined.job.path),
        spec,
        examined.pool,
        asked=examined.asked,
        config=examined.config,
        settings=settings_of(examined.config, spec) if examined.config or made is not None else None,
        data_parallel=examined.data_parallel,
        findings=examined.findings(**_learned(made)),
        estimates=made,
        suggestions=suggestions,
        points=wanted.points,
        wishes=tuple(wishes(spec, made, quick=wanted.quick)),
        assumed=tuple(assumptions(examined, made)),
    )


def python_here(spec: JobSpec) -> str:
    """Return the training's Python, or ours where this machine has not got that one."""
    return shutil.which(spec.train.python or "") or sys.executable


def _start_count(job: LoadedJob, examined: Examination) -> Counting | None:
    model = job.spec.model
    if model is None or model.config is None:
        return None
    from orchestrator.huggingface import start_count  # noqa: PLC0415 - most jobs give numbers

    try:
        return start_count(model, python_here(job.spec), job.base_dir)
    except JobFileError as error:
        examined.add(error)
        return None


def _shape(job: LoadedJob, examined: Examination, counting: Counting | None) -> ModelShape | None:
    if counting is None:
        return None if job.spec.model is None else shape_of(job.spec.model)
    try:
        shape = counting.result()
    except JobFileError as error:
        examined.add(error)
        return None
    said = None if job.spec.model is None else job.spec.model.parameters
    if said is not None:
        what = f"is not used: model.config is counted, and has {count(shape.parameters)}"
        fix = "remove one of them; --quick goes by the number"
        examined.add_all("warning", [Problem(what, "model.parameters", count(said), fix)], "model-said-twice")
    return shape


def _estimates(examined: Examination, shape: ModelShape | None) -> Estimates | None:
    if shape is None or examined.pool is None:
        return None
    spec, pool = examined.job.spec, examined.pool
    try:
        hardware = resolve_hardware(spec.hardware)
    except JobFileError as error:
        examined.add(error)
        return None
    return estimates(shape, settings_of(examined.config, spec), World.of(pool), hardware)


def _learned(made: Estimates | None) -> dict[str, Any]:
    """Return the facts for the rules that the estimates bring."""
    if made is None:
        return {}
    learned: dict[str, Any] = {"gpu_memory_needed": made.gpu.total, "tensors": _matrices(made.shape)}
    learned |= {"pretrained_in": made.shape.pretrained_in, "gpu_memory": made.hardware.gpu_memory}
    learned |= {"host_memory_needed": made.host.total, "host_memory": made.hardware.host_memory}
    return {key: value for key, value in learned.items() if value is not None}


def _matrices(shape: ModelShape) -> tuple[int, ...] | None:
    """Return the sizes of the weights that are no vectors: biases and norms are a few hidden sizes long."""
    if shape.tensors is None:
        return None
    return tuple(size for size in shape.tensors if size > 8 * (shape.hidden_size or 0))


def _start_verify(examined: Examination) -> Running | None:
    """Let the installed DeepSpeed and Accelerate load what would be rendered."""
    from orchestrator.configs import verify  # noqa: PLC0415 - jobs without DeepSpeed have nothing to verify

    files = {"ds_config.json": json.dumps(examined.config, indent=2)}
    if examined.job.spec.train.launcher == "accelerate":
        files |= _accelerate(examined)
    world_size = 0 if examined.pool is None else examined.pool.world_size
    return verify.start(files, python_here(examined.job.spec), world_size)


def _accelerate(examined: Examination) -> dict[str, str]:
    """Return Accelerate's configuration file beside DeepSpeed's; none where it cannot be made."""
    import yaml  # noqa: PLC0415 - for this launcher alone

    from orchestrator.configs import accelerate_config  # noqa: PLC0415 - as above

    pool, spec = examined.pool, examined.job.spec.deepspeed
    if pool is None:
        return {}
    try:
        config = accelerate_config.build(
            examined.config,
            ds_config_path="ds_config.json",
            world_size=pool.world_size,
            num_machines=len(pool.hosts),
            zero3_init=None if spec is None else spec.zero3_init,
        )
    except JobFileError as error:
        examined.add(error)
        return {}
    return {"accelerate.yaml": yaml.safe_dump(config, sort_keys=False)}


def _verified(running: Running | None, examined: Examination) -> Checked | None:
    if running is None:
        return None
    found = running.result(_VERIFY_SECONDS)
    examined.add_all("error", map(examined.placed, found.problems), "installed")
    examined.add_all("warning", map(examined.placed, found.warnings), "installed-unread")
    return Checked(found.versions, found.seconds)
