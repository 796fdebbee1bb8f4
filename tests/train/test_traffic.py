"""What DeepSpeed's collectives move is what `estimate.traffic` predicts, byte for byte, on four gloo ranks.

One start of four processes runs all cases; ZEROPP's kind of model: eight layers of 256 x 256 in bf16.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.estimate import ModelShape, Settings, World, traffic
from tests.train.ranks import run_ranks

RANKS, GROUP = 4, 2
WORLD = World(2, GROUP)  # hosts of two ranks: DeepSpeed does not ask where ranks are
SCRIPT = Path(__file__).with_name("traffic_script.py")
EVEN = (256 * 256,) * 8
ODD = (*EVEN[:7], 256 * 255, 255)  # a bias that is padded by one element
GATHER_ALL = {"prefetch_bucket": 0, "max_reuse": 0, "persistence_threshold": 0}

CASES = [  # (tensors, settings, frozen); hpZ last: DeepSpeed keeps its groups until the process ends
    (EVEN, Settings(stage=3, accumulation=1, **GATHER_ALL), False),
    (EVEN, Settings(stage=3, accumulation=3, **GATHER_ALL), False),
    (ODD, Settings(stage=3, accumulation=1, **GATHER_ALL), False),
    # Two of eight layers are used again within 4 x 65536 elements of the modules that follow.
    (EVEN, Settings(stage=3, accumulation=1, **GATHER_ALL | {"max_reuse": 4 * 65536}), False),
    (EVEN, Settings(stage=3, accumulation=3, persistence_threshold=0), False),  # all are
    (ODD, Settings(stage=3, accumulation=3), False),  # all are small enough to stay whole
    (ODD, Settings(stage=3, accumulation=2, **GATHER_ALL | {"persistence_threshold": 65280}), False),
    (EVEN, Settings(stage=3, accumulation=2, **GATHER_ALL), True),
    (EVEN, Settings(stage=3, accumulation=2, quantized_weights=True, **GATHER_ALL), False),
    (EVEN, Settings(stage=2, accumulation=3), False),
    (EVEN, Settings(stage=1, accumulation=3), False),
    (EVEN, Settings(stage=3, accumulation=1, hpz=GROUP, **GATHER_ALL), False),
    (EVEN, Settings(stage=3, accumulation=3, hpz=GROUP, **GATHER_ALL), False),
    (ODD, Settings(stage=3, accumulation=3, hpz=GROUP, **GATHER_ALL), False),
    (EVEN, Settings(stage=3, accumulation=3, hpz=GROUP, **GATHER_ALL | {"max_reuse": 4 * 65536}), False),
    (EVEN, Settings(stage=3, accumulation=2, hpz=GROUP, **GATHER_ALL), True),
    (EVEN, Settings(stage=3, accumulation=2, hpz=GROUP, quantized_weights=True, **GATHER_ALL), False),
]

pytestmark = pytest.mark.train


def section(tensors: tuple[int, ...], settings: Settings, *, frozen: bool) -> dict[str, object]:
    return {
        "stage": settings.stage,
        "zero_quantized_weights": settings.quantized_weights,
        "zero_hpz_partition_size": settings.hpz,
        "stage3_prefetch_bucket_size": settings.prefetch_bucket,
        "stage3_param_persistence_threshold": settings.persistence_threshold,
        "stage3_max_reuse_distance": settings.max_reuse,
        "g": settings.accumulation,
        "odd": tensors == ODD,
        "frozen": frozen,
    }


@pytest.fixture(scope="module")
def measured() -> list[dict[str, int]]:
    """Bytes by "phase/ranks of the group", one for each case."""
    cases = json.dumps([section(tensors, settings, frozen=frozen) for tensors, settings, frozen in CASES])
    said = run_ranks(RANKS, SCRIPT, cases)
    lines = (line for line in said.splitlines() if line.startswith("BYTES "))
    return [json.loads(line.removeprefix("BYTES ")) for line in lines]


def predicted(tensors: tuple[int, ...], settings: Settings, *, frozen: bool) -> dict[str, int]:
    """The same from the formula; backward's reduction goes over all ranks."""
    trained = sum(tensors) // 2 if frozen else sum(tensors)
    sent = traffic(ModelShape(sum(tensors), trained, tensors=tensors), settings, WORLD)
    found = {
        f"forward/{RANKS}": sent.world.forward_gather,
        f"backward/{RANKS}": sent.world.backward_gather + sent.world.reduce,
        f"step/{RANKS}": sent.world.update_gather,
        f"forward/{GROUP}": sent.group.forward_gather,
        f"backward/{GROUP}": sent.group.backward_gather,
    }
    return {key: size for key, size in found.items() if size}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_measured_bytes_are_predicted_bytes(measured, number):
    assert len(measured) == len(CASES)
    tensors, settings, frozen = CASES[number]
    assert measured[number] == predicted(tensors, settings, frozen=frozen)


def test_zero_3_moves_three_times_the_weights_and_hpz_keeps_one_gather_inside(measured):
    """The formula says so too: this holds both against the paper's figures (arXiv 2306.10209)."""
    weights = 2 * sum(EVEN)
    assert measured[0] == {"forward/4": weights, "backward/4": 2 * weights}
    assert measured[11] == {"forward/4": weights, "backward/4": weights, "backward/2": weights}
    assert measured[12] == {
        "forward/4": weights,
        "forward/2": 2 * weights,
        "backward/2": 3 * weights,
        "backward/4": 3 * weights,
    }
