"""Which checkpoints a folder holds, in the order in which they were saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.checkpoints import folders
from orchestrator.checkpoints.deepspeed import written
from orchestrator.checkpoints.tag import (
    SUFFIX,
    Kind,
    Listing,
    Tag,
    aside,
    in_making,
    listing,
    pruned,
    step_of,
)

if TYPE_CHECKING:
    from pathlib import Path

_DEPTH = 2  # folders between the given one and a tag, as in project/checkpoints/checkpoint_3


@dataclass(frozen=True, slots=True)
class Latest:
    """DeepSpeed's file `latest`.

    Attributes:
        tag: the name in it; empty when there is no such file.
        why: why nothing can be loaded by it; empty when it names a tag that is complete, or does not exist.
    """

    tag: str
    why: str


def tags(folder: Path, world_size: int | None = None) -> list[Tag]:
    """Return every checkpoint of a folder, newest last.

    Args:
        folder: where a run saves, such as DeepSpeed's `save_dir`; no such folder holds no tags.
        world_size: see `last_complete`.

    The order is that of writing: a run that was taken back to an earlier step goes on from where it went
    last, not from the highest step. What `latest` names counts as newer than all but the tags of a higher
    step that were written after `latest`, so that a copied folder, with the times of the copying, keeps its
    order.
    """
    return [found.examine(world_size) for found in sightings(folder)]


def last_complete(folder: Path, world_size: int | None = None, *, universal: bool = False) -> Tag | None:
    """Return the newest checkpoint that a run can go on from; None when there is none.

    Args:
        folder: where a run saves.
        world_size: data-parallel ranks of the run that saved, for tags whose files do not say it (DeepSpeed's
            do). It overrules no file: a run on other hosts still finds the tags that it saved before.
        universal: take universal checkpoints too, which an engine loads only when its configuration says
            `checkpoint.load_universal`.

    `latest` is not believed: it may name a tag that was damaged since, and a run that was killed between the
    last shard and `latest` has saved everything. A tag is complete when its own files say so. Every file must
    have its end, and there must be a shard for each rank. How many ranks there are is not counted in the
    names, as a tag whose last ranks have not written yet would look like one of fewer: the model states hold
    `dp_world_size` and the optimizer states `partition_count`; both are read (nothing is loaded) and must
    agree. A tag that is newer than `latest` needs both, or `world_size` for one of them. A tag of which some
    shards are older than `latest` and some newer is the mixture that a broken second save left.

    Weights alone (an exported model) are taken only from a folder in which nothing else was ever saved. What
    was set aside for a run that goes on from an earlier step (aside.py) is taken only by its name.
    """
    for one in reversed(_candidates(sightings(folder), universal=universal)):
        tag = one.examine(world_size)
        if tag.complete:
            return tag
    return None


def _candidates(found: list[Sighting], *, universal: bool) -> list[Sighting]:
    """Return what a run may go on from, newest last.

    A universal checkpoint that lies beside its tag comes before that one, however much later it was made.
    """
    only_weights = all(one.kind is Kind.WEIGHTS for one in found)
    known = {one.path: one for one in found}
    chosen = []
    for one in found:
        if one.kind is Kind.UNIVERSAL:
            name = one.path.name
            wanted = universal and not (name.endswith(SUFFIX) and _beside(one, name[: -len(SUFFIX)]) in known)
        else:
            wanted = only_weights or one.kind is not Kind.WEIGHTS
        if wanted and not aside(one.path.name):
            made = known.get(_beside(one, one.path.name + SUFFIX))
            chosen += [made] if universal and made is not None and made.kind is Kind.UNIVERSAL else []
            chosen.append(one)
    return chosen


def _beside(one: Sighting, name: str) -> Path:
    return one.path.parent / name


def one_tag(path: Path, world_size: int | None = None) -> Tag | None:
    """Return the checkpoint in this very folder; None where there is none.

    Args:
        path: the tag's own folder.
        world_size: see `last_complete`.
    """
    place = listing(path)
    children = [listing(path / name) for name in place.folders]
    kind = folders.kind_of(place, children)
    return None if kind is None else _sighting(place, kind, children).examine(world_size)


def latest(folder: Path, world_size: int | None = None) -> Latest:
    """Say what `latest` in a folder points to, and why that is no good where it is not."""
    name = written(folder).tag
    if not name:
        there = (folder / "latest").exists()
        return Latest("", "`latest` is empty or cannot be read" if there else "")
    for found in sightings(folder):
        if found.listing.path == folder / name:
            why = found.examine(world_size).why
            return Latest(name, f"`latest` names {name}, which is not complete: {why}" if why else "")
    return Latest(name, f"`latest` names {name}, and there is no such tag")


@dataclass(frozen=True, slots=True)
class Sighting:
    """A checkpoint that was seen, and not looked into yet: its files were listed, none was opened.

    Attributes:
        listing: its folder.
        kind: who wrote it.
        parts: the folders in it that hold shards.
        step: as its name tells it; None when it does not.
        modified: when its newest file was written, epoch seconds.
    """

    listing: Listing
    kind: Kind
    parts: tuple[Listing, ...]
    step: int | None
    modified: float

    @property
    def path(self) -> Path:
        """Return its folder."""
        return self.listing.path

    @property
    def size(self) -> int:
        """Return the bytes of all its files."""
        return self.listing.size() + sum(part.size() for part in self.parts)

    def examine(self, world_size: int | None = None) -> Tag:
        """Look into its files.

        Args:
            world_size: see `last_complete`.
        """
        finding = folders.examine(self.listing, self.kind, self.parts, world_size)
        steps = [self.step, finding.step]
        if self.kind is Kind.ACCELERATE:  # checkpoint_3 is its fourth save, not the third step
            steps.reverse()
        return Tag(
            name=self.path.name,
            path=self.path,
            step=next((step for step in steps if step is not None), None),
            complete=not finding.problems,
            why="; ".join(finding.problems[:3]),
            world_size=finding.world_size,
            stage=finding.stage,
            size=self.size,
            modified=self.modified,
            kind=self.kind,
            ranks=finding.ranks,
        )


def sightings(folder: Path) -> list[Sighting]:
    """Return the checkpoints of a folder unexamined, in the order of `tags`."""
    last = written(folder)
    found = _below(listing(folder), 0)
    ended = next((one for one in found if one.listing.path == folder / last.tag), None)

    def place(one: Sighting) -> tuple[int, float, int]:
        step = -1 if one.step is None else one.step
        if ended is None or one is ended:
            return int(one is ended), one.modified, step
        later = one.modified > last.modified and (one.step is None or step > (ended.step or -1))
        return 2 if later else 0, one.modified, step

    return sorted(found, key=place)


def _below(place: Listing, depth: int) -> list[Sighting]:
    children = [listing(place.path / name) for name in place.folders if not (pruned(name) or in_making(name))]
    kind = folders.kind_of(place, children)
    if kind not in {None, Kind.WEIGHTS}:
        return [_sighting(place, kind, children)]
    inside = [one for child in children for one in _below(child, depth + 1)] if depth < _DEPTH else []
    return inside or ([_sighting(place, kind, children)] if kind else [])


def _sighting(place: Listing, kind: Kind, children: list[Listing]) -> Sighting:
    parts = folders.parts_of(kind, children)
    modified = max([place.newest(), *(part.newest() for part in parts)])
    steps = [step_of(place.path.name), *(step_of(part.path.name) for part in parts)]
    step = next((step for step in steps if step is not None), None)
    return Sighting(place, kind, parts, step, modified)
