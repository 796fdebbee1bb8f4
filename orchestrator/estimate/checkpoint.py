"""A checkpoint's size, how often to save one, and how much of the time is then spent training.

Symbols as in the papers: a checkpoint stops training for `cost` seconds, failures come every `mtbf` seconds
on average, a restart takes `restart` seconds and noticing a failure `detect`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.estimate.hardware import Hardware
    from orchestrator.estimate.settings import Settings, World
    from orchestrator.estimate.shape import ModelShape

_MASTER = 4  # bytes of a weight's fp32 copy


def checkpoint_bytes(shape: ModelShape, settings: Settings) -> int:
    """Return the bytes of one checkpoint over all ranks: 14 for each parameter with Adam in 16 bits.

    Weights in the run's precision, and for what is trained the fp32 copy and the optimizer's states.
    DeepSpeed's tutorial log of GPT-2 18B has 258.098 GB for 18.4356e9 parameters: 14.000.
    """
    master = 0 if settings.stage == 0 and settings.precision == "fp32" else _MASTER
    return settings.parameter_bytes * shape.parameters + (master + settings.state_bytes) * shape.trainable


def young(cost: float, mtbf: float) -> float:
    """Return Young's interval between checkpoints, in seconds: sqrt(2 cost mtbf) (CACM 17(9), 1974)."""
    return math.sqrt(2 * cost * mtbf)


def daly(cost: float, mtbf: float, restart: float) -> float:
    """Return Daly's first-order interval, in seconds: sqrt(2 cost (mtbf + restart)) (FGCS 22(3), 2006).

    From the start of one checkpoint to the start of the next; Daly's text takes `cost` off to leave the work.
    """
    return math.sqrt(2 * cost * (mtbf + restart))


def goodput(interval: float, cost: float, mtbf: float, restart: float, detect: float) -> float:
    """Return the part of the time that is spent on steps which count, 0 to 1.

    A failure loses half an interval, its detection and the restart; saving takes `cost` of each interval:
    `(1 - (interval/2 + restart + detect) / mtbf) / (1 + cost/interval)`.
    """
    return max(0.0, 1 - (interval / 2 + restart + detect) / mtbf) / (1 + cost / interval)


@dataclass(frozen=True)
class Cadence:
    """How often to save a checkpoint.

    Attributes:
        steps: whole steps between checkpoints; None when the step time is not known.
        seconds: the same in seconds.
        young: Young's interval before rounding, seconds.
        daly: Daly's, seconds.
        cost: seconds that one checkpoint takes.
        mtbf: mean time between failures of the run, seconds.
        goodput: part of the time spent on steps which count, at that interval.
    """

    steps: int | None
    seconds: float
    young: float
    daly: float
    cost: float
    mtbf: float
    goodput: float

    def to_json(self) -> dict[str, Any]:
        """Return all of it for `json.dumps`."""
        return asdict(self)


def best_interval(
    cost: float, mtbf: float, *, restart: float = 180.0, detect: float = 60.0, step: float | None = None
) -> Cadence:
    """Return the interval after Daly, rounded to the whole number of steps with the better goodput.

    Args:
        cost: seconds that one checkpoint takes, above 0.
        mtbf: mean time between failures of the whole run, seconds, above 0.
        restart: seconds from a failure's detection to the first step after it.
        detect: seconds from a failure to its detection.
        step: seconds of one optimizer step, above 0; None leaves the interval unrounded.
    """
    ideal = daly(cost, mtbf, restart)
    steps = None
    if step is not None:
        below = max(1, math.floor(ideal / step))
        steps = max((below, below + 1), key=lambda n: goodput(n * step, cost, mtbf, restart, detect))
    seconds = ideal if steps is None or step is None else steps * step
    reached = goodput(seconds, cost, mtbf, restart, detect)
    return Cadence(steps, seconds, young(cost, mtbf), ideal, cost, mtbf, reached)


def plan_cadence(
    shape: ModelShape,
    settings: Settings,
    world: World,
    hardware: Hardware,
    *,
    step: float | None = None,
    detect: float = 60.0,
) -> Cadence | None:
    """Return how often a job should save, or None when `storage` or `host_mtbf` is not known.

    Args:
        shape: the model.
        settings: decides with it on a checkpoint's size.
        world: the run fails when any of its hosts does.
        hardware: `storage`, `host_mtbf` and `restart_time`.
        step: seconds of one optimizer step, None when not known.
        detect: seconds from a failure to its detection.
    """
    if hardware.storage is None or hardware.host_mtbf is None:
        return None
    cost = checkpoint_bytes(shape, settings) / hardware.storage
    mtbf = hardware.host_mtbf / world.nodes
    return best_interval(cost, mtbf, restart=hardware.restart_time, detect=detect, step=step)
