"""Suggestions: what fits, in which order, and what is never suggested."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from orchestrator.estimate import Hardware, ModelShape, Settings, World, find_gpu, suggest

A100 = find_gpu("A100-80GB")
HOSTS = Hardware(A100, "cuda", A100.memory, host_memory=10**12, link=12.5e9, gpu_link=300e9, host_link=25e9)
LLAMA_7B = ModelShape(6_738_000_000, 6_738_000_000, 131_072_000, 4096, 32, 32, 32_000, 2048)
LLAMA_70B = ModelShape(68_977_000_000, 68_977_000_000, 262_144_000, 8192, 80, 64, 32_000, 2048)
BASE = Settings(3, "bf16", 1, 8, recompute=True)


def test_a_slow_network_asks_for_zeropp_and_says_what_it_loses():
    slow = replace(HOSTS, link=1.25e9)
    best = suggest(LLAMA_7B, BASE, World(4, 8), slow).ranked[0]
    assert best.settings.hpz == 8
    assert best.settings.quantized_weights
    assert best.settings.quantized_gradients
    assert best.lossy == ("weights are gathered in 8 bits (qwZ)", "gradients are reduced in 4 bits (qgZ)")
    assert best.fields()["deepspeed.hpz"] == "node"
    exact = suggest(LLAMA_7B, BASE, World(4, 8), slow, lossy=False)
    assert not any(each.lossy for each in exact.ranked)
    assert exact.ranked[0].settings.hpz == 8
    assert exact.ranked[0].time.total > best.time.total


def test_a_fast_network_leaves_it_alone():
    best = suggest(LLAMA_7B, replace(BASE, micro_batch=8), World(2, 8), replace(HOSTS, link=400e9)).ranked[0]
    assert best.time.bound == "compute"
    assert best.lossy == ()
    assert best.settings.hpz == 1
    assert best.settings.offload_optimizer == "none"


def test_what_does_not_fit_is_dropped_with_the_reason():
    found = suggest(LLAMA_70B, BASE, World(2, 8), replace(HOSTS, host_memory=500 * 10**9))
    reasons = {each.reason for each in found.dropped if each.settings.stage == 1}
    assert all("on a GPU of 85.9 GB" in reason or "on a host of" in reason for reason in reasons)
    assert reasons
    assert all(each.settings.stage == 3 for each in found.ranked)
    assert all(each.gpu.total <= 0.9 * A100.memory for each in found.ranked)
    assert all(each.host.total <= 450 * 10**9 for each in found.ranked)
    assert found.ranked
    assert all(each.settings.offload_optimizer == "none" for each in found.ranked)  # takes 690 GB a host


def test_one_host_has_no_zeropp():
    found = suggest(LLAMA_7B, BASE, World(1, 8), HOSTS)
    tried = [each.settings for each in (*found.ranked, *found.dropped)]
    assert not any(each.hpz > 1 or each.quantized_weights or each.quantized_gradients for each in tried)


def test_hard_rules():
    on_cpu = suggest(LLAMA_7B, BASE, World(4, 8), Hardware(device="cpu"))
    assert not any(each.lossy for each in on_cpu.ranked)
    assert any("need CUDA" in each.reason for each in on_cpu.dropped)
    found = suggest(LLAMA_7B, BASE, World(4, 8), HOSTS)
    assert not any(each.settings.hpz > 1 and each.settings.offload_param != "none" for each in found.ranked)
    assert any("#6926" in each.reason for each in found.dropped)


def _plain_stage_3(candidate):
    wish = candidate.settings
    return not candidate.lossy and wish.hpz == 1 and wish.stage == 3


def test_the_micro_batch_grows_while_it_pays_and_the_samples_stay():
    slow = replace(HOSTS, link=1.25e9)
    found = suggest(LLAMA_7B, replace(BASE, accumulation=48), World(4, 8), slow)
    for each in found.ranked:
        assert each.settings.micro_batch * each.settings.accumulation == 48
    plain = next(each for each in found.ranked if _plain_stage_3(each))
    assert plain.settings.micro_batch > 1
    quiet = suggest(LLAMA_7B, BASE, World(4, 8), replace(HOSTS, link=1e15))
    assert quiet.ranked[0].settings.micro_batch == 1  # nothing to gain: the job file's own stays


def test_fields_are_the_changes_alone():
    found = suggest(LLAMA_7B, BASE, World(4, 8), HOSTS)
    for each in found.ranked:
        assert each.changed == bool(each.fields())
        assert all(key.startswith("deepspeed.") for key in each.fields())
    own = [each for each in found.ranked if not each.changed]
    assert len(own) <= 1


def test_without_figures_it_ranks_by_traffic_and_says_what_it_does_not_know():
    found = suggest(ModelShape(10**9, 10**9), Settings(3), World(2, 8), Hardware())
    sizes = [each.between for each in found.ranked]
    assert sizes[0] == min(sizes)
    best = found.ranked[0]
    assert best.time.total is None
    assert "the GPU's memory is not known: nothing says that this fits" in best.notes
    assert any(note.startswith("activations are not counted") for note in best.notes)
    assert best.settings.micro_batch is None


def test_odd_numbers_of_hosts_are_told_of():
    found = suggest(LLAMA_7B, BASE, World(3, 8), HOSTS)
    assert all(
        any("#5054" in note for note in each.notes) == each.settings.quantized_gradients
        for each in found.ranked
    )


def test_candidates_can_be_written_as_json():
    best = suggest(LLAMA_7B, BASE, World(4, 8), HOSTS).ranked[0]
    data = json.loads(json.dumps(best.to_json()))
    assert data["gpu_memory"]["total"] == best.gpu.total
    assert data["step_time"]["bound"] == best.time.bound
    assert "ZeRO-" in data["why"]


@hypothesis(deadline=None)
@given(st.integers(10**8, 10**12), st.integers(1, 4096), st.integers(1, 12_500), st.floats(1e8, 1e12))
def test_every_suggestion_is_ranked_and_fits(parameters, samples, nodes, link):
    shape = ModelShape(parameters, parameters, parameters // 50, 4096, 32, 32, 32_000, 2048)
    found = suggest(shape, replace(BASE, accumulation=samples), World(nodes, 8), replace(HOSTS, link=link))
    times = [each.time.total for each in found.ranked]
    assert all(later >= 0.97 * earlier for earlier, later in pairwise(times))
    assert all(each.gpu.total <= 0.9 * A100.memory for each in found.ranked)
    assert all(each.reason for each in found.dropped)
