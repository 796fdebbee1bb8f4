"""GPUs by name, and what a job file says of its hosts."""

from __future__ import annotations

import pytest

from orchestrator.errors import JobFileError
from orchestrator.estimate import Hardware, find_gpu, known_gpus, resolve_hardware
from orchestrator.job.model_spec import HardwareSpec


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H100-80GB", "H100-80GB"),
        ("h100", "H100-80GB"),
        ("A100-40GB", "A100-40GB"),
        ("rtx4090", "RTX-4090"),
        ("H200", "H200-141GB"),
        ("B200", "B200-180GB"),
        # as torch.cuda.get_device_name says
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 PCIe", "H100-PCIE-80GB"),
        ("NVIDIA H200", "H200-141GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_names(name, expected):
    assert find_gpu(name).name == expected


def test_every_gpu_is_found_by_its_own_name_and_is_plausible():
    for gpu in known_gpus():
        assert find_gpu(gpu.name) is gpu
        assert 14 * 2**30 < gpu.memory < 300 * 2**30
        assert gpu.tflops_fp32 <= gpu.tflops_16
        assert gpu.host_link <= 64e9


@pytest.mark.parametrize("name", ["", "A", "K80", "H100-96GB"])
def test_unknown_names_are_answered_with_known_ones(name):
    with pytest.raises(ValueError, match="H100-80GB"):
        find_gpu(name)


def test_the_job_file_wins_over_the_data_sheet():
    spec = HardwareSpec(gpu="A100-80GB", gpu_memory="79GiB", link="100Gbit/s", host_mtbf="42d")
    found = resolve_hardware(spec)
    assert (found.gpu_memory, found.link, found.gpu_link) == (79 * 2**30, 12.5e9, 300e9)
    assert (found.capability, found.device, found.host_mtbf) == (8.0, "cuda", 42 * 86400)
    assert found.peak("bf16") == 312e12
    assert found.peak("fp32") == 19.5e12
    assert resolve_hardware(HardwareSpec(gpu="A100-80GB", gpu_tflops=200)).peak("bf16") == 200e12


def test_bf16_before_ampere_runs_at_the_pace_of_fp32():
    found = resolve_hardware(HardwareSpec(gpu="V100-32GB"))
    assert (found.peak("fp16"), found.peak("bf16")) == (125e12, 15.7e12)


def test_nothing_said_is_nothing_known():
    assert resolve_hardware(None) == Hardware()
    assert resolve_hardware(HardwareSpec()) == Hardware()
    assert resolve_hardware(HardwareSpec(gpu="cpu")).device == "cpu"
    assert Hardware().peak("bf16") is None
    assert Hardware().capability is None


def test_an_unknown_gpu_is_an_error_unless_its_figures_are_given():
    with pytest.raises(JobFileError) as caught:
        resolve_hardware(HardwareSpec(gpu="H101"))
    (problem,) = caught.value.problems
    assert (problem.where, problem.value) == ("hardware.gpu", "H101")
    assert "H100-80GB" in problem.what
    found = resolve_hardware(HardwareSpec(gpu="H101", gpu_memory="96GiB", gpu_tflops=1000))
    assert (found.gpu, found.gpu_memory, found.device) == (None, 96 * 2**30, "cuda")
