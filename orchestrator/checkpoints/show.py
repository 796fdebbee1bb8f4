"""What a folder of checkpoints holds, as `checkpoint list` shows it and as its JSON says it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints.find import Sighting, last_complete, latest, sightings
from orchestrator.checkpoints.tag import Kind, listing, pruned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

GATHERED = re.compile(r"(pytorch_model|model)(-\d+-of-\d+)?\.(bin|safetensors)")
"""Files of whole weights, as Trainer, Accelerate and DeepSpeed's `save_16bit_model` write them.

At stage 3 they come from `stage3_gather_16bit_weights_on_model_save`.
"""
_WHOLE = {Kind.TRAINER, Kind.ACCELERATE, Kind.DEEPSPEED, Kind.WEIGHTS}


def describe(folder: Path) -> dict[str, Any]:
    """Return all checkpoints of a folder, newest last, as a JSON object.

    Returns:
        `folder`; `latest`, what DeepSpeed's file of that name says; `tags`; `notes`, sentences about what a
        user has to know. Of a tag: name, path, kind, step, size (bytes), complete, why (it is not), stage,
        world_size (data-parallel ranks), saved (epoch seconds), latest (that file names it), resumable (a run
        goes on from it), weights (files of whole weights in it), more (words for a table).
    """
    found = sightings(folder)
    last = last_complete(folder)
    named = latest(folder)
    parents = {one.path.parent for one in found}
    pointed = {parent / name for parent in parents if (name := latest(parent).tag)}
    tags = [_entry(one, pointed, None if last is None else last.path) for one in found]
    notes = [*([named.why] if named.why else []), *_notes(folder, parents)]
    return {"folder": str(folder), "latest": named.tag or None, "tags": tags, "notes": notes}


def gathered(seen: Sighting) -> list[str]:
    """Return the names of the files of whole weights in a checkpoint."""
    return sorted(filter(GATHERED.fullmatch, seen.listing.files)) if seen.kind in _WHOLE else []


def size_words(size: float) -> str:
    """Return bytes as people write them: 812 B, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _entry(one: Sighting, pointed: set[Path], last: Path | None) -> dict[str, Any]:
    tag = one.examine()
    weights = gathered(one)
    return {
        "name": tag.name,
        "path": str(tag.path),
        "kind": str(tag.kind),
        "step": tag.step,
        "size": tag.size,
        "complete": tag.complete,
        "why": tag.why,
        "stage": tag.stage,
        "world_size": tag.world_size,
        "saved": tag.modified,
        "latest": tag.path in pointed,
        "resumable": tag.path == last,
        "weights": weights,
        "more": list(_more(one, weights)),
    }


def _more(one: Sighting, weights: list[str]) -> Iterator[str]:
    if one.kind is not Kind.DEEPSPEED:
        yield str(one.kind)
    if weights and one.kind is not Kind.WEIGHTS:
        yield "whole weights"
    if one.path.is_symlink():
        yield f"link to {one.path.readlink()}"


def _notes(folder: Path, parents: Iterable[Path]) -> Iterator[str]:
    left = [name for place in {folder, *parents} for name in listing(place).folders if pruned(name)]
    if left:
        yield f"{len(left)} half-deleted: {', '.join(sorted(left)[:3])}; the next prune deletes them"
