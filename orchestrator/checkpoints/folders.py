"""Whether a checkpoint is complete that is more than one folder of DeepSpeed's shards, or none of its at all.

    checkpoint-120/global_step120/  latest  trainer_state.json  rng_state_0.pth    Trainer 5
    checkpoint_3/pytorch_model/     latest  random_states_0.pkl                    Accelerate 1.15, save_state
    checkpoint_3/pytorch_model_fsdp_0/  optimizer_0/  random_states_0.pkl          the same, FSDP
    global_step120_universal/zero/<parameter>/fp32.pt  mp_rank_00_model_states.pt  DeepSpeed, ds_to_universal
    step-120/.metadata  __0_0.distcp                                               torch.distributed
    export/model.safetensors.index.json  model-00001-of-00002.safetensors          weights

A file that nothing else tells of is not missed: a folder that lost its `scheduler.bin`, its `sampler.bin` or
its last `custom_checkpoint` looks like one that never had it, as does a plain folder without an index.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from orchestrator.checkpoints import deepspeed, distributed
from orchestrator.checkpoints.tag import Finding, Kind, Listing, listing, named, step_of, temporary
from orchestrator.checkpoints.whole import Said, broken_files

if TYPE_CHECKING:
    from collections.abc import Iterable

_TRAINERS = re.compile(r"checkpoint-\d+")
_ACCELERATES = re.compile(r"pytorch_model(_\d+)?|pytorch_model_fsdp_\d+")
_WEIGHTS = re.compile(r"(adapter_)?model.*\.safetensors|pytorch_model.*\.bin|adapter_model\.bin")
_PLAIN = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_DEVICES = ("cuda", "xpu", "mlu", "sdaa", "musa", "hpu", "neuron")
_RANDOM = {Kind.TRAINER: ("rng_state_", ".pth"), Kind.ACCELERATE: ("random_states_", ".pkl")}


def kind_of(place: Listing, children: list[Listing]) -> Kind | None:
    """Return who wrote a folder; None for one that is no checkpoint (though some may lie in it)."""
    if _is_universal(place):
        return Kind.UNIVERSAL
    if deepspeed.is_tag(place) or _is_begun(place):
        return Kind.DEEPSPEED
    if distributed.is_tag(place):
        return Kind.DISTRIBUTED
    return _container(place, children) or _plain(place)


def parts_of(kind: Kind, children: list[Listing]) -> tuple[Listing, ...]:
    """Return the folders in a tag that belong to it and hold shards."""
    if kind is Kind.UNIVERSAL:
        zero = [child for child in children if child.path.name == "zero"]
        return (*zero, *(listing(one.path / name) for one in zero for name in one.folders))
    return tuple(child for child in children if _is_part(child)) if kind in _RANDOM else ()


def examine(place: Listing, kind: Kind, parts: tuple[Listing, ...], world_size: int | None) -> Finding:
    """Look into a tag; see `deepspeed.examine`."""
    if temporary(place.path.name) or (kind is Kind.DEEPSPEED and not place.files):
        return Finding(
            ["nothing is in it" if not place.files else "its name is that of a save that did not end"]
        )
    if kind is Kind.DEEPSPEED:
        return deepspeed.examine(place, deepspeed.written(place.path.parent), world_size)
    if kind is Kind.UNIVERSAL:
        return _universal(place, parts, world_size)
    if kind is Kind.DISTRIBUTED:
        return Finding(distributed.problems(place), world_size)
    if kind in _RANDOM:
        return _several(place, kind, parts, world_size)
    return Finding([*broken_files(place), *_not_indexed(place)], world_size)


def _is_part(child: Listing) -> bool:
    return deepspeed.is_tag(child) or distributed.is_tag(child)


def _is_universal(place: Listing) -> bool:
    return "zero" in place.folders and (deepspeed.is_tag(place) or (place.path / "zero").is_dir())


def _is_begun(place: Listing) -> bool:
    return not place.files and not place.folders and step_of(place.path.name) is not None


def _container(place: Listing, children: list[Listing]) -> Kind | None:
    if any(_TRAINERS.fullmatch(name) for name in place.folders):
        return None  # the folder of a whole run, in which Trainer leaves a state and a model too
    inside = [child for child in children if _is_part(child)]
    states = any(re.fullmatch(r"random_states_\d+\.pkl|optimizer\.bin", name) for name in place.files)
    if states or any(_ACCELERATES.fullmatch(child.path.name) for child in inside):
        return Kind.ACCELERATE
    its = "trainer_state.json" in place.files or _TRAINERS.fullmatch(place.path.name)
    return Kind.TRAINER if its and (inside or place.files or place.folders) else None


def _plain(place: Listing) -> Kind | None:
    return Kind.WEIGHTS if any(name.endswith(_PLAIN) for name in place.files) else None


def _several(place: Listing, kind: Kind, parts: tuple[Listing, ...], world_size: int | None) -> Finding:
    """Look into a folder of Trainer or Accelerate: its parts, and what it keeps beside them."""
    inner = [_part(place, part, world_size) for part in parts]
    first = inner[0] if inner else Finding(world_size=world_size, ranks=world_size)
    problems = [
        *(f"{part.path.name}: {why}" for part, of in zip(parts, inner, strict=True) for why in of.problems),
        *broken_files(place),
        *_random_states(place, kind, first.ranks),
        *(_trainers(place, parts) if kind is Kind.TRAINER else ()),
        *(() if parts else _model_and_optimizer(place, kind)),
        *_not_indexed(place),
    ]
    return Finding(problems, first.world_size, first.ranks, first.stage, first.step)


def _part(place: Listing, part: Listing, world_size: int | None) -> Finding:
    if distributed.is_tag(part):
        return Finding(distributed.problems(part), world_size, world_size)
    return deepspeed.examine(part, deepspeed.written(place.path), world_size)


def _random_states(place: Listing, kind: Kind, ranks: int | None) -> Iterable[str]:
    """Say whose random states are missing: each rank writes its own, Accelerate as its last file."""
    head, tail = _RANDOM[kind]
    numbers = {
        int(name[len(head) : -len(tail)]) for name in place.files if re.fullmatch(rf"{head}\d+{tail}", name)
    }
    if kind is Kind.TRAINER and "rng_state.pth" in place.files:
        return  # of the only rank
    if numbers == {0} and kind is Kind.ACCELERATE and not _of_devices(place):
        return
    expected = set(range(ranks if ranks is not None else max(numbers, default=0) + 1))
    gone = sorted(expected - numbers)
    if gone:
        ranks_gone = named([str(rank) for rank in gone])
        yield f"{len(gone)} of {len(expected)} random states are missing: rank {ranks_gone}"


def _of_devices(place: Listing) -> bool:
    """Return whether ranks with a device saved the random states.

    Without one, each rank is rank 0 of 1 to Accelerate 1.15 with DeepSpeed, and they share one file.
    """
    says = Said(place.path / "random_states_0.pkl")
    return any(says.mentions(f"torch_{device}_manual_seed") for device in _DEVICES)


def _trainers(place: Listing, parts: tuple[Listing, ...]) -> Iterable[str]:
    if "trainer_state.json" not in place.files:  # Trainer writes it last
        yield "trainer_state.json is missing"
    tags = [part.path.name for part in parts if deepspeed.is_tag(part)]
    if tags and deepspeed.written(place.path).tag not in tags:  # Trainer loads what it names
        yield f"its `latest` does not name {named(tags)}"


def _model_and_optimizer(place: Listing, kind: Kind) -> Iterable[str]:
    wanted = ("optimizer.pt", "scheduler.pt") if kind is Kind.TRAINER else ("optimizer.bin",)
    for name in wanted:
        if name not in place.files:
            yield f"{name} is missing"
    if not any(_WEIGHTS.fullmatch(name) for name in place.files):
        yield "the model's weights are missing"


def _not_indexed(place: Listing) -> Iterable[str]:
    """Say which shards an index names that are not there, and which are there of a set without its index."""
    covered: set[str] = set()
    for index in sorted(name for name in place.files if name.endswith(".index.json")):
        try:
            shards = set(json.loads((place.path / index).read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            yield f"{index} cannot be read"
            continue
        covered |= shards
        gone = sorted(shards - place.files.keys())
        if gone:
            yield f"{len(gone)} of {len(shards)} shards that {index} names are missing: {named(gone)}"
    loose = [name for name in place.files if re.search(r"-\d+-of-\d+\.", name) and name not in covered]
    if loose:
        yield f"no index names {named(sorted(loose))}"


def _universal(place: Listing, parts: tuple[Listing, ...], world_size: int | None) -> Finding:
    finding = deepspeed.examine(place, deepspeed.Written(), world_size, universal=True)
    finding.problems.extend(_unconverted(place, *parts))
    return finding


def _unconverted(place: Listing, zero: Listing, *parameters: Listing) -> Iterable[str]:
    if "tmp" in place.folders:
        yield "its folder tmp is the remains of a conversion that did not end"
    if "optimizer_state.pt" not in zero.files:
        yield "zero/optimizer_state.pt is missing"
    states = {name for parameter in parameters for name in parameter.files}
    for folder in (zero, *parameters):
        yield from (f"{folder.path.name}/{problem}" for problem in broken_files(folder))
    for parameter in parameters:
        gone = sorted(states - parameter.files.keys())
        if gone and parameter.files.keys() != {"fp32.pt"}:  # all that a parameter without gradient has
            yield f"{parameter.path.name} lacks {named(gone)}"
