"""A run that goes on where another one has ended: the same job, perhaps on another number of hosts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import prepare
from orchestrator.checkpoints.find import sightings
from orchestrator.checkpoints.place import Place, choose
from orchestrator.checkpoints.universal import Start, start_from
from orchestrator.configs.batch import GLOBAL, MICRO, STEPS
from orchestrator.configs.keep_batch import kept_batch
from orchestrator.errors import CheckpointError, JobFileError, Problem
from orchestrator.job import load_job
from orchestrator.render import render

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.checkpoints.tag import Tag
    from orchestrator.job import LoadedJob
    from orchestrator.plan import LaunchPlan
    from orchestrator.prepare import Prepared
    from orchestrator.rundir import RunDir

_BATCH = (
    *("deepspeed", "deepspeed.global_batch", "deepspeed.gradient_accumulation_steps"),
    *("deepspeed.config_file", "deepspeed.overrides"),
    *(f"deepspeed.overrides.{key}" for key in (GLOBAL, MICRO, STEPS)),
)
"""What `--set` sets for a batch that is the user's own."""
_CONFIG = "deepspeed.config_file"


@dataclass(frozen=True)
class Resumption:
    """A run that is ready to go on.

    Attributes:
        prepared: the new run.
        before: the plan of the old one, on the hosts that it had last.
        start: the checkpoint it goes on from, as what.
        batch: the batch numbers that were changed to keep the global batch; nothing where none had to be.
    """

    prepared: Prepared
    before: LaunchPlan
    start: Start
    batch: dict[str, int]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what the user should know, as far as it is about going on."""
        plan = self.prepared.plan
        found = list(_of_batch(self.before, plan))
        if not plan.resume_args and not any("{resume_tag}" in word for word in plan.args):
            what = "train.resume_args is empty: only ORCHESTRATE_RESUME_TAG tells the script where to go on"
            fix = "if it does not read that: --set 'train.resume_args=[--resume, \"{resume_tag}\"]'"
            found.append(f"{what}\n  fix: {fix}, or what your script calls it")
        return tuple(found)


def _of_batch(before: LaunchPlan, plan: LaunchPlan) -> Iterator[str]:
    was, now = ((each.deepspeed or {}).get(GLOBAL) for each in (before, plan))
    if not isinstance(now, int) and plan.world_size != before.world_size:
        yield "the script alone knows its batch sizes: see that the global batch stays what it was"
    elif isinstance(now, int) and isinstance(was, int) and now != was:
        yield f"a step takes {now} samples from here on, and took {was}: it means more or less than before"


def make_resumption(
    run: RunDir, settings: Sequence[str] = (), nodes: int | None = None, tag: str | None = None
) -> Resumption:
    """Prepare the run that goes on where another one has ended; nothing is written.

    Args:
        run: the run that has ended.
        settings: as of `--set`, for what is to be different.
        nodes: the number of hosts, if another one.
        tag: the checkpoint to go on from; the newest complete one when not given.

    Raises:
        JobFileError: the job does not fit its hosts, or its global batch cannot be kept.
        CheckpointError: there is nothing to go on from, or these ranks cannot load it.
    """
    before = _plan_of(run)
    asked = [*_own_settings(before, settings), *_nodes(nodes), *settings]
    job = _load(run, before, asked)
    batch = _batch(before, job, settings)
    if batch:
        more = [f"deepspeed.overrides.{key}={value}" for key, value in batch.items()]
        job = _load(run, before, [*asked, *more])
    prepared = _without_ours(prepare.prepare(job, os.environ), batch)
    plan = prepared.plan
    found = choose(_place(run, plan), tag, universal=plan.deepspeed is not None)
    _see_that_its_name_tells(found, plan)
    start = start_from(found, plan.deepspeed, plan.world_size)
    plan = replace(plan, resume_tag=found.name)
    return Resumption(replace(prepared, plan=plan, files=render(plan)), before, start, batch)


def _without_ours(prepared: Prepared, batch: dict[str, int]) -> Prepared:
    """Leave out that fields of the batch do nothing beside overrides: these are what keeps the batch."""
    ours = tuple(f"deepspeed.overrides.{key} says" for key in batch)
    told = tuple(each for each in prepared.warnings if not any(word in each for word in ours))
    return replace(prepared, warnings=told)


def _see_that_its_name_tells(tag: Tag, plan: LaunchPlan) -> None:
    """Refuse a tag whose name is that of others in other folders: ranks are told the name."""
    same = [one for one in sightings(Path(plan.checkpoint_dir or "")) if one.path.name == tag.name]
    if len(same) > 1:
        fix = f"name its own folder: --set train.checkpoint_dir={tag.path.parent}"
        raise CheckpointError(Problem("several tags have that name", "--tag", tag.name, fix))


def _plan_of(run: RunDir) -> LaunchPlan:
    try:
        return run.latest_plan()
    except (OSError, ValueError) as error:
        fix = "submit its job file, with train.checkpoint_dir as it was and train.resume: always"
        what = f"its plan cannot be read: {error}"
        raise CheckpointError(Problem(what, "RUN", run.run_id, fix)) from None


def _own_settings(before: LaunchPlan, settings: Sequence[str]) -> list[str]:
    """Return what the job file says otherwise: the folder of the run that began, and that it goes on."""
    own = ["train.resume=restart"] if before.resume == "never" else []
    if before.checkpoint_dir is not None:
        own.append(f"train.checkpoint_dir={json.dumps(before.checkpoint_dir)}")
    elif not any(_key(setting) == "train.checkpoint_dir" for setting in settings):
        what = "the job file of this run does not say where its checkpoints are"
        fix = "name the folder: --set train.checkpoint_dir=FOLDER"
        raise CheckpointError(Problem(what, "train.checkpoint_dir", fix=fix))
    return own


def _nodes(nodes: int | None) -> list[str]:
    return [] if nodes is None else [f"cluster.nodes={nodes}"]


def _load(run: RunDir, before: LaunchPlan, settings: Sequence[str]) -> LoadedJob:
    """Load the job that was submitted, with the DeepSpeed file that was kept unless another is named."""
    kept = run.ds_source.exists() and not any(_key(setting) == _CONFIG for setting in settings)
    more = [f"{_CONFIG}={json.dumps(str(run.ds_source))}"] if kept else []
    job = load_job(run.job_file, [*settings, *more], base_dir=Path(before.base_dir))
    if job.spec.matrix is not None:
        what, fix = "this is a sweep of many runs", "resume one of its points"
        raise JobFileError(Problem(what, "RUN", run.run_id, fix))
    return job


def _batch(before: LaunchPlan, job: LoadedJob, settings: Sequence[str]) -> dict[str, int]:
    """Return the batch numbers to set; none where ranks are as many as before, or the user sets them."""
    spec = job.spec.deepspeed
    if spec is None or before.deepspeed is None or any(_key(one) in _BATCH for one in settings):
        return {}
    world_size = prepare.pool_of(job.spec.cluster).world_size
    changed = any(_key(setting) == "deepspeed.micro_batch_per_gpu" for setting in settings)
    if world_size == before.world_size and not changed:
        return {}
    return kept_batch(before.deepspeed, world_size, spec.micro_batch_per_gpu if changed else None)


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _place(run: RunDir, plan: LaunchPlan) -> Place:
    folder = Path(plan.checkpoint_dir or "")
    if not folder.is_dir():
        fix = (
            "nothing was saved yet, or the folder is on the hosts' own disks, and cannot be looked into here"
        )
        what = "there is no such folder here"
        raise CheckpointError(Problem(what, "train.checkpoint_dir", str(folder), fix))
    return Place(folder, run, plan)
