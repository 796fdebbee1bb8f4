"""Tags that fewer ranks would save over: what is left of the old shards would make a mixture of two saves.

    checkpoints/global_step120/             by 4 ranks; the run goes on from step 100 with 2 ranks
    checkpoints/global_step120_of_4_ranks/  what it is called then, whole as it was

DeepSpeed (0.19.8) saves into the folder that is there: of 4 shards it would write the first two anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from orchestrator.checkpoints.find import sightings
from orchestrator.checkpoints.tag import Kind, aside, step_of

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.checkpoints.universal import Start

_RANK = re.compile(r"zero_pp_rank_(\d+)_")


def set_aside(folder: Path, start: Start, ranks: int) -> list[tuple[str, str]]:
    """Rename the tags of more ranks that a run may save over; return (old name, new name) of each.

    Args:
        folder: where the run saves.
        start: where it goes on: what has a step before that one stays, and what it loads.
        ranks: how many ranks save from now on.

    Raises:
        OSError: one cannot be renamed.
    """
    moved = []
    for seen in sightings(folder):
        most = _ranks_in(seen)
        if seen.path.parent == folder and most > ranks and _may_come_again(seen, start):
            place = _free(folder, f"{seen.path.name}_of_{most}_ranks")
            seen.path.rename(place)
            moved.append((seen.path.name, place.name))
    return moved


def _ranks_in(seen: Sighting) -> int:
    if seen.kind is not Kind.DEEPSPEED:
        return 0
    found = (_RANK.search(name) for name in seen.listing.files)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _may_come_again(seen: Sighting, start: Start) -> bool:
    """Return whether a run that goes on there may save under this name: of a later step, or of no step."""
    if seen.path.name == start.name or aside(seen.path.name):
        return False
    if start.tag.step is None or step_of(seen.path.name) is None:
        return True
    return (seen.step or 0) > start.tag.step


def _free(folder: Path, name: str) -> Path:
    place, number = folder / name, 2
    while place.exists():
        place, number = folder / f"{name}_{number}", number + 1
    return place
