"""Which checkpoint a run on given ranks can go on from, and as what: as it is, or as a universal one.

    checkpoints/global_step120/             saved by 4 ranks: only 4 ranks can load it (ZeRO stages 1 to 3)
    checkpoints/global_step120_universal/   the same, converted: any number of ranks, with load_universal
    checkpoints/latest_universal            names it, for scripts that give load_checkpoint no tag

Source: `load_checkpoint` and `_load_zero_checkpoint` in DeepSpeed 0.19.8's `runtime/engine.py`. ZeRO's shards
are of all data-parallel ranks, whatever hpZ is: another hpZ on as many ranks needs no conversion. At stage 0
nothing is cut up. The stages 1 and 2 load each other's checkpoints, stage 3 only its own.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints.find import last_complete, one_tag
from orchestrator.checkpoints.tag import SUFFIX, Kind, Tag
from orchestrator.errors import CheckpointError, Problem
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_STAGE3 = 3


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run goes on.

    Attributes:
        tag: the newest complete checkpoint.
        name: of the tag that the ranks have to load: itself, or its universal form, made or to be made.
        universal: whether the engine needs `checkpoint.load_universal` for it.
        convert: whether the universal form has yet to be made.
    """

    tag: Tag
    name: str
    universal: bool = False
    convert: bool = False


def find_start(folder: Path, deepspeed: Mapping[str, Any] | None, world_size: int) -> Start | None:
    """Return where a run goes on that saves in a folder; None when nothing complete is there.

    Args:
        folder: where the run saves.
        deepspeed: its DeepSpeed configuration; without one, the script knows what it can load.
        world_size: its ranks.

    Raises:
        CheckpointError: the newest complete checkpoint is none that this configuration can load.
    """
    tag = last_complete(folder, universal=True)
    return None if tag is None else start_from(tag, deepspeed, world_size)


def start_from(tag: Tag, deepspeed: Mapping[str, Any] | None, world_size: int) -> Start:
    """Return how a run goes on from this complete tag; as `find_start`."""
    if tag.kind is Kind.UNIVERSAL:
        _check_stage(tag, deepspeed or {})
        return Start(tag, tag.name, universal=True)
    if deepspeed is None or tag.stage is None or tag.kind in {Kind.DISTRIBUTED, Kind.WEIGHTS}:
        return Start(tag, tag.name)
    _check_stage(tag, deepspeed)
    if not tag.stage or _fits(tag, deepspeed, world_size):
        return Start(tag, tag.name)
    if tag.kind is not Kind.DEEPSPEED:
        why, ranks = _foreign(tag), counted(tag.world_size or 0, "rank")
        what = f"{ranks} saved it, and {world_size} cannot load it: {why.what}"
        raise CheckpointError(replace(why, what=what, where=str(tag.path)))
    made = converted(tag)
    return Start(tag, universal_name(tag), universal=True, convert=made is None)


def _fits(tag: Tag, deepspeed: Mapping[str, Any], world_size: int) -> bool:
    """Return whether as many ranks saved a tag; the tag alone tells of a script's own model-parallel ones."""
    return tag.world_size in {None, zero_ranks(deepspeed, world_size)} or (
        "tensor_parallel" not in deepspeed and tag.ranks == world_size
    )


def zero_ranks(deepspeed: Mapping[str, Any], world_size: int) -> int:
    """Return over how many ranks ZeRO cuts its states up: all that do not hold slices of the same tensors."""
    section = deepspeed.get("tensor_parallel")
    size = section.get("autotp_size") if isinstance(section, dict) else None
    return world_size // size if isinstance(size, int) and size > 1 else world_size


def universal_name(tag: Tag) -> str:
    """Return what the universal form of a tag is called."""
    return tag.name + SUFFIX


def converted(tag: Tag) -> Tag | None:
    """Return the universal form of a tag, if it is there, complete and not older than the tag itself."""
    made = one_tag(tag.path.parent / universal_name(tag))
    fresh = made is not None and made.complete and made.modified >= tag.modified
    return made if fresh and made is not None and made.kind is Kind.UNIVERSAL else None


def with_loading(deepspeed: Mapping[str, Any], *, universal: bool) -> dict[str, Any]:
    """Return a DeepSpeed configuration that loads tags of this form.

    The key is written only where it is needed, or was there: an engine that is told to load universal
    checkpoints can load no others.
    """
    section = deepspeed.get("checkpoint")
    before = dict(section) if isinstance(section, dict) else {}
    if not universal and "load_universal" not in before:
        return dict(deepspeed)
    return {**deepspeed, "checkpoint": {**before, "load_universal": universal}}


def why_not_convertible(tag: Tag) -> Problem | None:
    """Return what stands against making a universal checkpoint of a tag; None when its names tell nothing.

    What only its contents tell, such as another optimizer than Adam's kind, the conversion finds.
    """
    where = str(tag.path)
    if tag.kind is Kind.UNIVERSAL:
        return Problem("it is a universal checkpoint already", where, fix="resume from it as it is")
    if tag.kind is not Kind.DEEPSPEED:
        return replace(_foreign(tag), where=where)
    if not tag.complete:
        return Problem(f"it is not complete: {tag.why}", where, fix="choose another tag: --tag")
    if not tag.stage:
        what, fix = "it was saved without ZeRO, and fits every number of ranks", "resume from it as it is"
        return Problem(what, where, fix=fix)
    if (tag.path / "offloaded_tensors").is_dir():
        what = "its optimizer's states were on NVMe, of which DeepSpeed makes no universal checkpoints"
        ranks = counted(tag.world_size or 0, "rank")
        return Problem(what, where, fix=f"go on with {ranks}, as it was saved")
    return None


def _foreign(tag: Tag) -> Problem:
    """Say of a tag that DeepSpeed's `save_checkpoint` has not written directly what it needs instead."""
    if tag.kind is Kind.DISTRIBUTED:
        what = "torch.distributed.checkpoint wrote it, which cuts it up anew when it is loaded"
        return Problem(what, fix="resume from it as it is, with any number of ranks")
    if tag.kind is Kind.WEIGHTS:
        what = "it holds whole weights and no optimizer states, and fits every number of ranks"
        return Problem(what, fix="resume from it as it is")
    who = "HF Trainer" if tag.kind is Kind.TRAINER else "Accelerate's save_state"
    what = f"{who} wrote it, and looks for ZeRO's shards by a name that a universal checkpoint has not"
    anew = f"orchestrate checkpoint consolidate {shlex.quote(str(tag.path.parent))} OUT --tag {tag.name}"
    again = f"go on with {tag.world_size or 'as many'} ranks, as it was saved"
    return Problem(what, fix=f"{again}, or begin anew from its weights: {anew}")


def _check_stage(tag: Tag, deepspeed: Mapping[str, Any]) -> None:
    zero = deepspeed.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    if (
        deepspeed
        and tag.stage is not None
        and isinstance(stage, int)
        and (stage == _STAGE3) != (tag.stage == _STAGE3)
    ):
        what = (
            f"the checkpoint {tag.name} was saved at ZeRO stage {tag.stage}, which stage {stage} cannot load"
        )
        fix = f"--set deepspeed.zero_stage={tag.stage}, or another folder: --set train.checkpoint_dir=FOLDER"
        raise CheckpointError(Problem(what, "deepspeed.zero_stage", str(stage), fix))
