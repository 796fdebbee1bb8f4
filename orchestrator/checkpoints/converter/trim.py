"""What every rank reads as a whole: the optimizer's common state, without what is of no use there.

At stage 3 DeepSpeed 0.19.8 puts the first rank's whole shard of the optimizer into
`zero/optimizer_state.pt`, which each rank loads for the step count and the options: 5 GB a rank, for 7B
parameters saved by 16 ranks. And it gives the options of the first parameter group to all groups, so that
weight decay comes to where there was none; options that are not in there stay as the script has set them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:
    from .look import Seen

_OPTIMIZER, _GROUPS, _WEIGHTS = "optimizer_state_dict", "param_groups", "fp32_flat_groups"


def trim(seen: Seen, output: str) -> None:
    """Rewrite the common state in the universal checkpoint `output`; stages 1 and 2 have nothing to trim."""
    if seen.stage != 3:
        return
    import torch  # noqa: PLC0415 - see look.py

    path = os.path.join(output, "zero", "optimizer_state.pt")
    whole = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    kept = _common(whole, seen)
    torch.save(kept, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def _common(whole: Dict[str, Any], seen: Seen) -> Dict[str, Any]:
    inner = whole[_OPTIMIZER]
    first, *others = inner[_GROUPS]
    first = {key: value for key, value in first.items() if key not in seen.differing}
    states = {key: {"step": state["step"]} for key, state in inner["state"].items() if "step" in state}
    inner = {**inner, "state": states, _GROUPS: [first, *others]}
    return {**{key: value for key, value in whole.items() if key != _WEIGHTS}, _OPTIMIZER: inner}
