"""What a tag holds, and what of it a universal checkpoint cannot carry (DeepSpeed 0.19.8).

The tensors are mapped, not read. The pickles of a checkpoint are executed, as by every rank that loads it.
"""

from __future__ import annotations

import glob
import math
import os
import re
from typing import Any, Dict, Iterator, List

_ADAM = ("exp_avg", "exp_avg_sq")
_SHOWN = 4


class UnfitError(Exception):
    """The tag cannot be converted: what is against it, and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


class Seen:
    """What the files of the first rank say.

    Attributes:
        stage: ZeRO stage.
        differing: options that are not the same in all parameter groups of the optimizer.
        largest: elements of the largest parameter.
        shards: number of optimizer files; `shard_bytes` is the size of the largest of them.
        notes: what the ranks that load the universal checkpoint will not find as it was, in sentences.
    """

    def __init__(self, stage: int, differing: List[str], largest: int, sizes: List[int]) -> None:
        self.stage = stage
        self.differing = differing
        self.largest = largest
        self.shards = len(sizes)
        self.shard_bytes = max(sizes)
        self.notes: List[str] = []


def look() -> Seen:
    """Look at the tag in the current folder.

    Raises:
        UnfitError: its optimizer is none that DeepSpeed can convert, or has not taken a step.
    """
    optims = sorted(glob.glob("*_optim_states.pt"), key=_natural)
    optim = _load(optims[0])["optimizer_state_dict"]
    model = _load(min(glob.glob("*_model_states.pt"), key=_natural))
    stage = int(optim.get("zero_stage", 1))
    inner = optim["optimizer_state_dict" if stage == 3 else "base_optimizer_state"]
    state, groups = inner["state"], inner["param_groups"]
    _check_adam(list(state.values()))
    seen = Seen(stage, _differing(groups), _largest(model), [os.path.getsize(path) for path in optims])
    seen.notes.extend([*_not_loaded(model), *(_of_stage3(seen, state, groups) if stage == 3 else ())])
    return seen


def _load(path: str) -> Any:
    import torch  # noqa: PLC0415 - a machine without it is told in a line of JSON

    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)


def _natural(name: str) -> List[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _check_adam(states: List[Dict[str, Any]]) -> None:
    """Raise UnfitError unless every state is Adam's: DeepSpeed converts and loads these two, by name."""
    if not states:
        raise UnfitError(
            "its optimizer has not taken a step yet", "begin anew: there is nothing to go on from"
        )
    for state in states:
        gone = [key for key in _ADAM if key not in state]
        if gone:
            there = ", ".join(sorted(map(str, state))) or "nothing"
            what = f"its optimizer is not of Adam's kind: it has no {gone[0]} (but {there})"
            fix = "go on with as many ranks as saved it; DeepSpeed converts Adam's two moments only"
            raise UnfitError(what, fix)


def _differing(groups: List[Dict[str, Any]]) -> List[str]:
    keys = [key for key in groups[0] if key != "params"]
    return [key for key in keys if any(repr(group.get(key)) != repr(groups[0][key]) for group in groups)]


def _largest(model: Dict[str, Any]) -> int:
    shapes = model.get("param_shapes") or []
    groups = [shapes] if isinstance(shapes, dict) else shapes
    return max((math.prod(shape) for group in groups for shape in group.values()), default=0)


def _not_loaded(model: Dict[str, Any]) -> Iterator[str]:
    """Say what is in the module and not in the optimizer: a universal checkpoint is read for the latter."""
    frozen = sorted(model.get("frozen_param_shapes") or ())
    if frozen:
        yield (
            f"{len(frozen)} frozen weights ({_named(frozen)}) are not loaded from a universal checkpoint: "
            "the script has to load them as it did at its first start"
        )
    buffers = sorted(model.get("buffer_names") or ())
    if buffers:
        yield (
            f"{len(buffers)} buffers ({_named(buffers)}) are not loaded from a universal checkpoint: they "
            "begin as the script makes them"
        )


def _of_stage3(seen: Seen, state: Dict[Any, Dict[str, Any]], groups: List[Dict[str, Any]]) -> Iterator[str]:
    """Say what the engine of stage 3 does to an optimizer with several parts."""
    if seen.differing:
        yield (
            f"the {len(groups)} parameter groups differ in {', '.join(seen.differing)}; DeepSpeed would give "
            "all of them the values of the first, so these are left to the script"
        )
    if len(state) > 1 and hasattr(next(iter(state.values())).get("step"), "add_"):
        yield (
            f"PyTorch's own optimizer counts its steps {len(state)} times too fast from here on, once for "
            "each of its sub-groups, which share one counter: its bias correction ends early. DeepSpeed's "
            "optimizers do not do so, nor does one sub-group (a larger sub_group_size)"
        )


def _named(names: List[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
