"""Traffic of a step: the paper's table for every combination, and what a topology makes of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from orchestrator.estimate import ModelShape, Settings, World, traffic

SIZE = 2**30  # divides by every number of ranks here
M = 2 * SIZE
SHAPE = ModelShape(SIZE, SIZE)
# Weights that stay whole for backward are another matter: see test_reuse.
ZERO_3 = Settings(3, max_reuse=0, prefetch_bucket=0)
HOSTS = World(4, 8)


def plus(settings=ZERO_3, *, hpz=False, qwz=False, qgz=False):
    return replace(settings, hpz=8 if hpz else 1, quantized_weights=qwz, quantized_gradients=qgz)


def between(settings, world=HOSTS, shape=SHAPE):
    """Return what one host sends in units of M, before the factor (n-1)/n."""
    return traffic(shape, settings, world).between.total / M * world.nodes / (world.nodes - 1)


@pytest.mark.parametrize("g", [1, 2, 3, 8])
def test_the_table(g):
    """arXiv 2306.10209 for g = 1; DeepSpeed keeps hpZ's copy through later micro-steps."""
    settings = replace(ZERO_3, accumulation=g)
    assert between(settings) == 3 * g
    assert between(plus(settings, hpz=True)) == 1 + g
    assert between(plus(settings, hpz=True, qwz=True)) == 0.5 + g
    assert between(plus(settings, hpz=True, qgz=True)) == 1 + 0.25 * g
    assert between(plus(settings, hpz=True, qwz=True, qgz=True)) == 0.5 + 0.25 * g
    assert between(plus(settings, qwz=True)) == 2 * 0.5 * g + g
    assert between(plus(settings, qgz=True)) == 2 * g + 0.25 * g
    assert between(plus(settings, qwz=True, qgz=True)) == 1.25 * g


def test_phases():
    sent = traffic(SHAPE, plus(replace(ZERO_3, accumulation=2), hpz=True), HOSTS)
    assert (sent.between.forward_gather, sent.between.backward_gather, sent.between.reduce) == (
        M * 3 // 4,
        0,
        2 * M * 3 // 4,
    )
    # Inside, a second forward and both backwards gather in the group; the rest passes there in a ring.
    assert sent.inside.backward_gather == 2 * M * 7 // 8
    assert sent.inside.forward_gather == M * 31 // 32 + M * 7 // 8
    assert sent.total == 4 * sent.between.total
    assert sent.ring.total == 3 * M * 31 // 32


def test_stages_below_3():
    """All-reduce is twice a reduce-scatter; only stage 2 reduces in every micro-step."""
    g4 = Settings(accumulation=4)
    assert between(g4) == 2
    assert between(replace(g4, stage=1)) == 2 + 1
    assert between(replace(g4, stage=2)) == 4 * 2 + 1
    assert between(replace(g4, stage=2, multi_rank_allreduce=False)) == 4 * 1 + 1
    assert between(replace(g4, stage=2, communication_bytes=4)) == 4 * 4 + 1
    assert between(plus(replace(g4, stage=2), hpz=True, qwz=True, qgz=True)) == 4 * 2 + 1  # ignored there


def test_one_host_and_one_rank():
    one_host = traffic(SHAPE, plus(hpz=True, qgz=True), World(1, 8))
    assert (one_host.between.total, one_host.ring.total) == (0, 0)
    assert one_host.world.reduce == M  # DeepSpeed does not quantize gradients on one host
    assert traffic(SHAPE, ZERO_3, World(1, 1)).inside.total == 0
    assert traffic(SHAPE, ZERO_3, World(2, 1)).inside.total == 0


def test_frozen_weights_are_not_reduced_and_cross_hosts_once():
    shape = ModelShape(SIZE, SIZE // 16)
    assert between(ZERO_3, shape=shape) == 2 + 1 / 16
    assert between(plus(hpz=True), shape=shape) == 2 / 16  # their second copy is never out of date


def test_a_group_that_spans_hosts_gathers_between_them():
    wide = replace(ZERO_3, hpz=16)  # two hosts: half of backward's gather comes from the other one
    assert traffic(SHAPE, wide, HOSTS).between.backward_gather == M // 2


def test_reuse():
    """Half of `max_reuse` stays from forward to backward, a third with recomputation."""
    kept = replace(ZERO_3, max_reuse=SIZE)
    assert between(kept) == 2.5
    assert traffic(SHAPE, replace(kept, recompute=True), HOSTS).world.backward_gather == M - 2 * (SIZE // 3)
    assert between(replace(ZERO_3, prefetch_bucket=SIZE)) == 2
    blocks = replace(SHAPE, layers=16)
    assert between(replace(ZERO_3, recompute=True), shape=blocks) == 4  # gathers twice in backward


def test_tensors_are_padded_persist_and_fall_back():
    world = World(2, 2)
    tensors = (1000, 1001, 10, 10)
    shape = ModelShape(sum(tensors), sum(tensors), tensors=tensors)
    settings = replace(ZERO_3, persistence_threshold=10)
    sent = traffic(shape, settings, world).world
    assert (sent.forward_gather, sent.update_gather) == (2 * (1000 + 1004), 2 * (12 + 12))
    assert sent.reduce == 2 * (1000 + 1004 + 24)
    quantized = traffic(shape, replace(settings, quantized_gradients=True), world).world
    assert quantized.reduce == 1000 // 2 + 2 * (1001 + 20)  # 1001 and 10 do not divide by twice the ranks


@hypothesis(deadline=None)
@given(
    st.integers(10**3, 10**12),
    st.integers(0, 3),
    st.integers(1, 16),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from([World(2, 8), World(12_500, 8), World(3, 1), World(1, 4)]),
)
def test_every_feature_helps_or_does_nothing(parameters, stage, g, features, world):
    shape, settings = ModelShape(parameters, parameters), Settings(stage, accumulation=g)
    on = dict(zip(("hpz", "qwz", "qgz"), features, strict=True))
    sent = traffic(shape, plus(settings, **on), world)
    plain = traffic(shape, settings, world)
    # The quantizers round down to whole bytes, the formula to whole parts.
    assert sent.between.total <= plain.between.total + 8 * g
    for volume in (sent.between, sent.ring, sent.inside, sent.world, sent.group):
        assert all(type(part) is int and part >= 0 for part in vars(volume).values())
    assert sent.between.total <= sent.ring.total or world.gpus_per_node == 1


def test_all_combinations_are_accounted_for():
    totals = {
        on: between(plus(**dict(zip(("hpz", "qwz", "qgz"), on, strict=True))))
        for on in product((0, 1), repeat=3)
    }
    assert sorted(totals.values()) == [0.75, 1.25, 1.25, 1.5, 2, 2, 2.25, 3]
