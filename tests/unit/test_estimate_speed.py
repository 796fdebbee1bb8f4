"""Step time against measured runs, checkpoints and their cadence against published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from orchestrator.estimate import (
    Hardware,
    ModelShape,
    Settings,
    World,
    best_interval,
    checkpoint_bytes,
    daly,
    find_gpu,
    goodput,
    plan_cadence,
    step_time,
    young,
)

# DeepSpeed's ZeRO++ tutorial: 64 V100 on 4 hosts, GPT-2 of 18B, sequences of 512, one sample a GPU.
GPT_18B = ModelShape(18_435_600_000, 18_435_600_000, 50_432 * 6144, 6144, 40, 48, 50_432, 512)
TUTORIAL = Settings(3, "fp16", 1, 1, recompute=True)
V100 = find_gpu("V100-32GB")
TUTORIAL_HOSTS = Hardware(V100, "cuda", link=89e9 / 8, gpu_link=V100.gpu_link)
ALL = {"quantized_weights": True, "quantized_gradients": True}

# Four H200 as two hosts of two, the link shaped to 10 Gbit/s; both directions go through the same shaper.
LLAMA_1B = ModelShape(1_300_000_000, 1_300_000_000, 65_536_000, 2048, 24, 16, 32_000, 1024)
SHAPED = Hardware(find_gpu("H200"), "cuda", link=10e9 / 8 / 2, gpu_link=450e9)


@pytest.mark.parametrize(
    ("g", "features", "seconds", "tolerance"),
    [
        (1, {}, 7.32, 0.15),
        (1, {"hpz": 2}, 6.49, 0.1),
        (1, {"hpz": 2, **ALL}, 2.19, 0.1),
        (4, {"hpz": 2}, 16.52, 0.1),
        (4, {"hpz": 2, **ALL}, 4.16, 0.15),
    ],
)
def test_measured_on_a_shaped_link(g, features, seconds, tolerance):
    found = step_time(LLAMA_1B, Settings(3, "bf16", 2, g, **features), World(2, 2), SHAPED)
    assert found.total == pytest.approx(seconds, rel=tolerance)
    assert found.bound == "network"


def test_zero_3_with_accumulation_took_longer_than_anybody_waited():
    assert step_time(LLAMA_1B, Settings(3, "bf16", 2, 4), World(2, 2), SHAPED).total > 28


def test_the_tutorial_log_pair():
    """9.96 s and 3.68 s. The link follows from the first; the second has kernels that no link explains."""
    plus = replace(TUTORIAL, hpz=16, **ALL)
    base, best = (step_time(GPT_18B, each, World(4, 16), TUTORIAL_HOSTS) for each in (TUTORIAL, plus))
    assert base.total == pytest.approx(9.956, rel=0.05)
    assert 0.6 * 3.681 < best.total < 3.681
    assert 2.70 <= base.total / best.total < 2 * 2.70


def test_compute_counts_six_operations_eight_with_recomputation_and_four_for_frozen_weights():
    shape = ModelShape(10**9, 10**9, sequence_length=1000)
    gpu = Hardware(gpu_tflops=100.0, efficiency=0.5)
    one = World(1, 1)
    settings = Settings(0, "bf16", 2, 5)
    seconds = 2 * 5 * 1000 * 10**9 / 50e12
    assert step_time(shape, settings, one, gpu).total == pytest.approx(6 * seconds)
    assert step_time(shape, replace(settings, recompute=True), one, gpu).total == pytest.approx(8 * seconds)
    assert step_time(replace(shape, trainable=1), settings, one, gpu).total == pytest.approx(4 * seconds)
    assert step_time(replace(shape, active_parameters=10**8), settings, one, gpu).total == pytest.approx(
        0.6 * seconds
    )


def test_without_overlap_gradients_wait():
    both = [
        step_time(
            LLAMA_1B,
            Settings(3, "bf16", 2, 1, overlap_comm=on),
            World(2, 2),
            replace(SHAPED, efficiency=1e-3),
        )
        for on in (True, False)
    ]
    assert both[0].bound == "compute"
    wait = 2 * 1.3e9 * 0.75 / SHAPED.link
    hidden = both[0].network - wait
    assert both[0].total == pytest.approx((both[0].compute ** 2 + both[0].network ** 2) ** 0.5)
    assert both[1].total == pytest.approx((both[0].compute ** 2 + hidden**2) ** 0.5 + wait)


def test_offload_takes_time():
    hosts = replace(SHAPED, link=1e15, host_link=25e9, nvme=5e9)
    times = [
        step_time(LLAMA_1B, Settings(3, "bf16", 2, 1, offload_optimizer=device), World(2, 2), hosts).total
        for device in ("none", "cpu", "nvme")
    ]
    assert times == sorted(times)
    assert len(set(times)) == 3
    everything = Settings(3, "bf16", 2, 1, offload_optimizer="cpu", offload_param="nvme")
    found = step_time(LLAMA_1B, everything, World(2, 2), hosts)
    assert found.bound == "offload"
    assert found.missing == ()


def test_what_is_missing_is_named():
    found = step_time(
        ModelShape(10**9, 10**9), Settings(3, offload_optimizer="nvme"), World(2, 8), Hardware()
    )
    assert (found.compute, found.network, found.total, found.bound) == (None, None, None, "")
    assert found.missing == (
        "deepspeed.micro_batch_per_gpu",
        "model.sequence_length",
        "hardware.gpu_tflops",
        "hardware.link",
        "hardware.gpu_link",
        "hardware.host_link",
        "hardware.nvme",
    )


def test_a_checkpoint_has_14_bytes_a_parameter():
    assert checkpoint_bytes(GPT_18B, TUTORIAL) == pytest.approx(258.098e9, rel=1e-5)  # the tutorial's log
    assert checkpoint_bytes(ModelShape(1000, 10), TUTORIAL) == 2000 + 120
    assert checkpoint_bytes(ModelShape(1000, 1000), Settings(0, "fp32")) == 12_000
    assert checkpoint_bytes(ModelShape(1000, 1000), Settings(3, "fp32", state_bytes=4)) == 12_000


@pytest.mark.parametrize("hours", [7.9, 2.0, 1.0, 49.5, 12.4, 6.3])
def test_young_and_daly(hours):
    """For a 20 s checkpoint: 18, 9 and 6 minutes at 7.9, 2.0 and 1.0 hours, 44, 22 and 16 at the others."""
    minutes = {7.9: 18, 2.0: 9, 1.0: 6, 49.5: 44, 12.4: 22, 6.3: 16}[hours]
    assert round(young(20, hours * 3600) / 60) == minutes
    assert young(20, hours * 3600) == daly(20, hours * 3600, 0) < daly(20, hours * 3600, 600)


@pytest.mark.parametrize(
    ("cost", "detect", "restart", "expected"),
    [
        (20, 600, 600, (0.922, 0.978, 0.765, 0.944, 0.587, 0.907)),
        (20, 60, 180, (0.955, 0.984, 0.895, 0.965, 0.838, 0.949)),
        (5, 30, 60, (0.978, 0.992, 0.951, 0.983, 0.925, 0.975)),
    ],
)
def test_goodput_of_large_runs(cost, detect, restart, expected):
    """128, 512, 1000 hosts that fail every 42 days (arXiv 2410.21680) or 264 days (Llama 3's 16,384 H100)."""
    failures = [days * 86400 / hosts for hosts in (128, 512, 1000) for days in (42.1, 264)]
    found = [goodput(young(cost, mtbf), cost, mtbf, restart, detect) for mtbf in failures]
    assert found == pytest.approx(expected, abs=0.0006)


@hypothesis(deadline=None)
@given(
    st.floats(1, 1000), st.floats(3600, 10**7), st.floats(0, 600), st.floats(0, 600), st.floats(0.01, 1000)
)
def test_the_interval_is_whole_steps_and_neither_neighbour_is_better_by_much(
    cost, mtbf, restart, detect, step
):
    found = best_interval(cost, mtbf, restart=restart, detect=detect, step=step)
    assert found.steps >= 1
    assert found.seconds == found.steps * step
    assert abs(found.seconds - found.daly) <= step or found.steps == 1
    assert found.goodput == goodput(found.seconds, cost, mtbf, restart, detect)


def test_a_job_saves_as_its_hosts_fail():
    hosts = Hardware(storage=50e9, host_mtbf=42 * 86400.0, restart_time=180.0)
    found = plan_cadence(ModelShape(70 * 10**9, 70 * 10**9), Settings(3), World(128, 8), hosts, step=10.0)
    assert found.cost == pytest.approx(19.6)
    assert found.mtbf == pytest.approx(7.9 * 3600, rel=0.01)
    assert found.steps == pytest.approx(106, abs=2)
    assert plan_cadence(GPT_18B, TUTORIAL, World(1, 8), Hardware(storage=1e9)) is None
    assert plan_cadence(GPT_18B, TUTORIAL, World(4, 8), hosts).steps is None
