"""The value of a metric when a checkpoint was saved, which says which checkpoints are the best ones.

    <tag>/metrics.json                {"loss": 2.31}                  what a script adds to a tag: goes first
    <tag>/trainer_state.json          its log, `loss` or `eval_loss`  Trainer writes it
    <tag>/mp_rank_00_model_states.pt  client_state={"loss": 2.31}     given to DeepSpeed's save_checkpoint

A `client_state` is read without loading it, so the value has to be a plain Python number, and its name must
not be that of anything else in the file.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from orchestrator.checkpoints.tag import METRICS
from orchestrator.checkpoints.whole import Said

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.checkpoints.find import Sighting
    from orchestrator.checkpoints.tag import Listing

_TRAINERS = "trainer_state.json"
_FIRST = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")  # of rank 0


def metric_of(seen: Sighting, name: str) -> float | None:
    """Return a metric's value at a checkpoint.

    Args:
        seen: the checkpoint.
        name: the metric's name, as the script writes it; for Trainer's log also without its `eval_`.

    Returns:
        The value; None when nothing tells it, or it is no finite number.
    """
    places = (seen.listing, *seen.parts)
    for value in (_in_metrics(places, name), _in_log(seen.path / _TRAINERS, name), _in_state(places, name)):
        if value is not None:
            return value if math.isfinite(value) else None
    return None


def best_of_trainer(seen: Sighting) -> str:
    """Return the name of the checkpoint that Trainer will load as the best one; empty when it says none."""
    if _TRAINERS not in seen.listing.files:
        return ""
    best = _read(seen.path / _TRAINERS).get("best_model_checkpoint")
    return best.rstrip("/").rpartition("/")[2] if isinstance(best, str) else ""


def _in_metrics(places: tuple[Listing, ...], name: str) -> float | None:
    for place in places:
        if METRICS in place.files:
            return _number(_read(place.path / METRICS).get(name))
    return None


def _in_log(path: Path, name: str) -> float | None:
    """Return the last value in Trainer's log: an evaluation comes before the save of its step."""
    log = _read(path).get("log_history")
    entries = [entry for entry in log if isinstance(entry, dict)] if isinstance(log, list) else []
    for key in (f"eval_{name}", name):
        values = [_number(entry[key]) for entry in entries if key in entry]
        if values:
            return values[-1]
    return None


def _in_state(places: tuple[Listing, ...], name: str) -> float | None:
    for place in places:
        for file in _FIRST:
            if file in place.files:
                return Said(place.path / file).real(name)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
