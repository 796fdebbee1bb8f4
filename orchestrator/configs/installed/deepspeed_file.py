"""Load `ds_config.json` into the installed DeepSpeedConfig, for a world that is only said."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Mapping

from .asked import Asked, KeyPath
from .refusals import field_names, has, refused, value_at

if TYPE_CHECKING:
    from .answer import Answer

_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_TRIES = 20


class World:
    """As much of `deepspeed.comm` as the configuration asks for: rank 0 of a world of so many ranks."""

    def __init__(self, size: int) -> None:
        self.size = size

    def get_rank(self) -> int:
        """Return the rank."""
        return 0

    def get_world_size(self, group: Any = None) -> int:
        """Return the number of ranks; of all, there are no other groups here."""
        del group
        return self.size


def load_deepspeed(config: Mapping[str, Any], world: int, answer: Answer) -> None:
    """Load the configuration, again and again without what was refused, so that all refusals are found.

    Args:
        config: what `ds_config.json` holds.
        world: number of ranks; 0 for as many as the batch sizes fit.
        answer: gets the refusals, and the keys that nobody reads.
    """
    from deepspeed.runtime import config as theirs  # noqa: PLC0415 - the program also runs without DeepSpeed

    theirs.dist = World(world or _fitting_world(config))
    left = _with_batch(config)
    for _ in range(_TRIES):
        asked = Asked(left, (), [])
        try:
            theirs.DeepSpeedConfig(asked)
        except Exception as error:  # noqa: BLE001 - asserts, pydantic's, a KeyError in a section: all refusals
            paths = list(refused(error, left, tuple(asked.trail), answer))
            if not _without(left, paths):
                return
            left = _with_batch(left)
        else:
            _note_unread(asked, answer)
            return


def _note_unread(asked: Asked, answer: Answer) -> None:
    """Note the keys that nobody asked for, and the "auto" ones that are no key of any class."""
    for path, known in asked.unread():
        answer.drop(".".join(path), known)
    names = field_names()
    for path in asked.taken_autos():
        if path[-1] not in names:
            answer.drop(".".join(path), names)


def _with_batch(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with the micro-batch that DeepSpeed needs, where the script will give one."""
    filled = copy.deepcopy(dict(config))
    if all(config.get(key, "auto") == "auto" for key in _BATCH[:2]):
        filled[_BATCH[1]] = 1
    return filled


def _fitting_world(config: Mapping[str, Any]) -> int:
    """Return the number of ranks that the batch sizes fit."""
    total, micro, steps = (config.get(key) for key in _BATCH)
    if isinstance(total, int) and isinstance(micro, int) and isinstance(steps, int):
        return max(1, total // max(1, micro * steps))
    return 1


def _without(config: dict[str, Any], paths: list[KeyPath]) -> bool:
    """Remove keys; return whether any was there.

    Of the batch's three numbers all go: the other two may not fit either.
    """
    there = [path for path in paths if has(config, path)]
    for path in there:
        value_at(config, path[:-1]).pop(path[-1], None)
    if any(path[0] in _BATCH for path in there):
        for key in _BATCH:
            config.pop(key, None)
    return bool(there)
