"""Whether a tag of DeepSpeed's is complete.

    <tag>/mp_rank_00_model_states.pt                        stages 0 to 2, one for each model-parallel rank
    <tag>/zero_pp_rank_3_mp_rank_00_model_states.pt         stage 3, one for each rank
    <tag>/bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt    stages 1 to 3, one for each rank
    <tag>/layer_0_expert_1_mp_rank_00_model_states.pt       experts; layer_02-model_00-...: pipeline layers
    <tag>/offloaded_tensors/rank03/                         state that lives on NVMe

A tag whose last ranks have not written yet looks like one of fewer ranks. So the names alone never decide:
the model states say `dp_world_size`, the optimizer states `partition_count` (DeepSpeed 0.19.8).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from orchestrator.checkpoints.tag import Finding, Listing, named
from orchestrator.checkpoints.whole import Said, broken_files
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_MODEL = re.compile(r"(?:(?P<kind>zero_pp_rank_)(?P<dp>\d+)_)?mp_rank_(?P<mp>\d+)_model_states\.pt")
_OPTIM = re.compile(
    r"(?P<kind>(?:bf16_|fp16_)?)zero_pp_rank_(?P<dp>\d+)_mp_rank_(?P<mp>\d+)_?optim_states\.pt"
)
_EXPERT = re.compile(r"layer_(\d+)_expert_(\d+)_mp_rank_(\d+)_model_states\.pt")
_SKEW = 2.0  # seconds that the clocks of hosts, which stamp the files, may differ


@dataclass(frozen=True, slots=True)
class Written:
    """When DeepSpeed last ended a save in the folder of a tag: its file `latest`.

    It is written by rank 0 after a barrier, when all ranks have written their shards. It says nothing of tags
    that were saved with `save_latest=False`.
    """

    tag: str = ""
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class _Shards:
    """One family of shards: (data-parallel rank, model-parallel rank) to file name."""

    files: dict[tuple[int, int], str]
    kinds: frozenset[str]

    def first(self, folder: Listing) -> Said:
        return Said(folder.path / self.files[min(self.files)] if self.files else None)

    def span(self, axis: int) -> int:
        return 1 + max((rank[axis] for rank in self.files), default=-1)


def is_tag(folder: Listing) -> bool:
    """Return whether a folder holds shards of DeepSpeed."""
    return any(_MODEL.fullmatch(name) or _OPTIM.fullmatch(name) for name in folder.files)


def ranks_of(folder: Listing) -> int | None:
    """Return how many data-parallel ranks the model states of a tag tell of; None when they do not."""
    return _family(folder.files, _MODEL).first(folder).number("dp_world_size")


def written(folder: Path) -> Written:
    """Read `latest` in a folder; one that is missing or cannot be read says nothing."""
    path = folder / "latest"
    try:
        return Written(path.read_text(encoding="utf-8").strip(), path.stat().st_mtime)
    except (OSError, ValueError):
        return Written()


def examine(folder: Listing, ended: Written, world_size: int | None, *, universal: bool = False) -> Finding:
    """Look into a tag.

    Args:
        folder: the tag's listing.
        ended: what `latest` beside it says.
        world_size: data-parallel ranks, for a tag whose files do not tell.
        universal: whether it was converted, so that its optimizer states lie elsewhere.
    """
    return _Look(folder, ended, world_size, universal).finding()


class _Look:
    def __init__(self, folder: Listing, ended: Written, world_size: int | None, universal: bool) -> None:
        self._folder = folder
        self._ended = ended
        self._universal = universal
        self._model = _family(folder.files, _MODEL)
        self._optim = _family(folder.files, _OPTIM)
        self._model_says = self._model.first(folder)
        self._optim_says = self._optim.first(folder)
        words = (self._model_says.number("dp_world_size"), self._optim_says.number("partition_count"))
        self._own = [word for word in words if word is not None]
        self._words = [*self._own, *([] if world_size is None else [world_size])]
        self._ranks = self._words[0] if self._words else max(self._model.span(0), self._optim.span(0))
        parallel = self._model_says.number("mp_world_size") or 1
        self._parallel = max(parallel, self._model.span(1), self._optim.span(1))
        self._stage = self._find_stage()

    def finding(self) -> Finding:
        """Return everything that was found; the plainest problem comes first."""
        return Finding(
            problems=[
                *broken_files(self._folder),
                *self._disagreements(),
                *self._missing(),
                *_missing_experts(self._folder.files, self._model_says.number("num_experts") or 0),
                *self._unfinished(),
            ],
            world_size=self._ranks,
            ranks=self._ranks * self._parallel,
            stage=self._stage,
            step=self._model_says.number("global_steps"),
        )

    def _find_stage(self) -> int | None:
        if any(self._model.kinds):
            return 3
        stage = self._optim_says.number("zero_stage")
        return stage if stage is not None else self._model_says.number("stage", below="zero_optimization")

    def _disagreements(self) -> Iterable[str]:
        if not self._words:
            yield "nothing in it says how many ranks saved it"
        if len(self._model.kinds) > 1 or len(self._optim.kinds) > 1:
            yield "it holds shards of two different saves: of two ZeRO stages or two precisions"
        if len(set(self._own)) > 1:
            first, second = self._own
            yield f"{counted(first, 'rank')} saved it by the model states, {second} by the optimizer states"
        beyond = max(self._model.span(0), self._optim.span(0))
        if beyond > self._ranks:
            yield f"it holds a shard of rank {beyond - 1}, but {counted(self._ranks, 'rank')} saved it"

    def _missing(self) -> Iterable[str]:
        ranks = list(product(range(self._ranks), range(self._parallel)))
        if not self._universal and (self._stage != 0 or self._optim.files):
            yield from _lack("optimizer", ranks, self._optim.files)
        whole = [
            rank for rank in ranks if rank[0] == 0
        ]  # below stage 3 the first rank saves the model for all
        yield from _lack("model", ranks if self._stage == 3 else whole, self._model.files)

    def _unfinished(self) -> Iterable[str]:
        shards = [name for name in self._folder.files if name.endswith(".pt")]  # metrics may come later
        times = [self._folder.files[name][1] for name in shards]
        ended = self._ended.modified
        if self._universal or not times:
            return
        if ended and min(times) <= ended < max(times) - _SKEW:
            yield "a second save of it did not end: some shards are older than `latest`, some newer"
        if ended and ended >= max(times) - _SKEW:
            return
        yield from self._without_latest()

    def _without_latest(self) -> Iterable[str]:
        """Say what is open about a tag newer than `latest`: its files must tell twice what was saved."""
        if self._stage != 0 and len(self._words) < 2:
            yield "it is newer than `latest`, and only one of its files tells how many ranks saved it"
        if "offloaded_tensors" in self._folder.folders or self._optim_says.mentions("nvme"):
            yield "it is newer than `latest`, so its tensors on NVMe may not all have been copied"


def _family(names: Iterable[str], pattern: re.Pattern[str]) -> _Shards:
    files, kinds = {}, set()
    for name in names:
        match = pattern.fullmatch(name)
        if match:
            files[int(match["dp"] or 0), int(match["mp"])] = name
            kinds.add(match["kind"] or "")
    return _Shards(files, frozenset(kinds))


def _lack(what: str, wanted: list[tuple[int, int]], there: dict[tuple[int, int], str]) -> Iterable[str]:
    gone = [rank for rank in wanted if rank not in there]
    if gone:
        ranks = named([str(dp) if not mp else f"{dp} (model-parallel {mp})" for dp, mp in gone])
        plural = "shard is" if len(wanted) == 1 else "shards are"
        yield f"{len(gone)} of {len(wanted)} {what} {plural} missing: rank {ranks}"


def _missing_experts(names: Iterable[str], most: int) -> Iterable[str]:
    """Say which experts are missing; `most` is the number that the layer with the most of them has."""
    layers: dict[tuple[int, int], set[int]] = defaultdict(set)
    for name in names:
        match = _EXPERT.fullmatch(name)
        if match:
            layers[int(match[1]), int(match[3])].add(int(match[2]))
    least = most if len({max(there) for there in layers.values()}) <= 1 else 0  # layers may differ in number
    for (layer, _), there in sorted(layers.items()):
        gone = sorted(set(range(max(least, max(there) + 1))) - there)
        if gone:
            yield f"experts of layer {layer} are missing: {named([str(expert) for expert in gone])}"
