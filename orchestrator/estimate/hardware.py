"""What a GPU can hold and do, by its data sheet, and what a job file says of its hosts.

Peaks are dense (no 2:4 sparsity) and, for GeForce, with 32-bit accumulation, as training uses them. Links are
of one direction. Memory is what the driver offers: cards with GDDR memory give a sixteenth of it to ECC.

Sources, by maker: NVIDIA's data sheets of V100 (2020), A100 (2021), H100 and H200 (2024), HGX B200 (2025),
A10G, L4, L40S (2023) and T4 (2019); NVIDIA's white papers on GA102 (RTX 3090) and Ada (RTX 4090); AMD's data
sheets of MI250X (2021) and MI300X (2023).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.errors import JobFileError, Problem

if TYPE_CHECKING:
    from orchestrator.job.deepspeed_spec import Precision
    from orchestrator.job.model_spec import HardwareSpec

_MIB, _GIB, _GB, _TERA = 2**20, 2**30, 10**9, 10**12
EFFICIENCY = 0.45
"""Part of a GPU's peak that a transformer reaches when nothing waits (blogs/zeropp of DeepSpeed: 44 %)."""


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU, as one rank sees it.

    Attributes:
        name: how it is called in a job file.
        memory: bytes.
        tflops_16: dense peak with 16-bit operands (fp16; bf16 too from capability 8.0 on), TFLOP/s.
        tflops_fp32: peak in fp32, what PyTorch uses by default, TFLOP/s.
        tflops_tf32: peak in TF32, which a script can allow in place of fp32; None where there is none.
        capability: CUDA's compute capability; for AMD what `torch.cuda.get_device_capability` says.
        gpu_link: from one GPU to the others of its host, one direction, bytes/s (NVLink, Infinity Fabric or
            PCIe).
        host_link: from one GPU to its host's memory, one direction, bytes/s (PCIe x16).
    """

    name: str
    memory: int
    tflops_16: float
    tflops_fp32: float
    tflops_tf32: float | None
    capability: float
    gpu_link: float
    host_link: float


_PCIE3, _PCIE4, _PCIE5 = 16 * _GB, 32 * _GB, 64 * _GB
_GPUS = (
    Gpu("V100-16GB", 16160 * _MIB, 125.0, 15.7, None, 7.0, 150 * _GB, _PCIE3),
    Gpu("V100-32GB", 32510 * _MIB, 125.0, 15.7, None, 7.0, 150 * _GB, _PCIE3),
    Gpu("T4", 15360 * _MIB, 65.0, 8.1, None, 7.5, _PCIE3, _PCIE3),
    Gpu("A100-40GB", 40960 * _MIB, 312.0, 19.5, 156.0, 8.0, 300 * _GB, _PCIE4),
    Gpu("A100-80GB", 81920 * _MIB, 312.0, 19.5, 156.0, 8.0, 300 * _GB, _PCIE4),
    Gpu("A10G", 23028 * _MIB, 70.0, 35.0, 35.0, 8.6, _PCIE4, _PCIE4),
    Gpu("RTX-3090", 24576 * _MIB, 71.0, 35.6, 35.6, 8.6, _PCIE4, _PCIE4),
    Gpu("L4", 23034 * _MIB, 121.0, 30.3, 60.0, 8.9, _PCIE4, _PCIE4),
    Gpu("L40S", 46068 * _MIB, 362.0, 91.6, 183.0, 8.9, _PCIE4, _PCIE4),
    Gpu("RTX-4090", 24564 * _MIB, 165.2, 82.6, 82.6, 8.9, _PCIE4, _PCIE4),
    Gpu("H100-80GB", 81559 * _MIB, 989.4, 66.9, 494.7, 9.0, 450 * _GB, _PCIE5),
    Gpu("H100-PCIE-80GB", 81559 * _MIB, 756.0, 51.2, 378.0, 9.0, _PCIE5, _PCIE5),
    Gpu("H200-141GB", 143771 * _MIB, 989.4, 66.9, 494.7, 9.0, 450 * _GB, _PCIE5),
    Gpu("B200-180GB", 183359 * _MIB, 2250.0, 75.0, 1100.0, 10.0, 900 * _GB, _PCIE5),
    # A rank gets one of the two dies (GCDs) of an MI250X: half of the card.
    Gpu("MI250X", 64 * _GIB, 191.5, 47.9, None, 9.0, 50 * _GB, _PCIE4),
    Gpu("MI300X", 192 * _GIB, 1307.4, 163.4, 653.7, 9.4, 448 * _GB, _PCIE5),
)
_NOISE = re.compile(r"nvidia|amd|tesla|geforce|instinct|graphics|sxm\d?|hbm\d?e?|oam|[^a-z0-9]")
_COMMON = {
    "v100": "V100-16GB",
    "a100": "A100-40GB",
    "h100": "H100-80GB",
}  # the smaller one where sizes differ
_COMMON |= {"h100pcie": "H100-PCIE-80GB", "a100pcie40gb": "A100-40GB", "a100pcie80gb": "A100-80GB"}


def known_gpus() -> tuple[Gpu, ...]:
    """Return every GPU of the table, oldest first."""
    return _GPUS


def find_gpu(name: str) -> Gpu:
    """Return the GPU of this name: `H100-80GB`, `h100`, or as torch prints it, `NVIDIA A100-SXM4-80GB`.

    Raises:
        ValueError: the table has no such GPU; the message names close ones.
    """
    word = _NOISE.sub("", name.lower())
    for gpu in _GPUS:
        if _NOISE.sub("", gpu.name.lower()) == word or _COMMON.get(word) == gpu.name:
            return gpu
    begun = [gpu for gpu in _GPUS if word and _NOISE.sub("", gpu.name.lower()).startswith(word)]
    if len(begun) == 1:
        return begun[0]
    names = [gpu.name for gpu in _GPUS]
    close = [each for each in names if difflib.get_close_matches(word, _forms(each), cutoff=0.7)]
    raise ValueError(
        f"no such GPU is known; {'close are' if close else 'known are'} {', '.join(close or names)}"
    )


def _forms(name: str) -> list[str]:
    """Return a name as it is compared, with and without its memory."""
    return [_NOISE.sub("", name.lower()), name.lower().split("-", 1)[0]]


@dataclass(frozen=True)
class Hardware:
    """The hosts of a job: what the job file says, else the GPU's data sheet, else None.

    Attributes:
        gpu: the GPU of the table; None when it is not said, not known, or there is none.
        device: `cuda`, `cpu`, or "" when it is not known.
        gpu_memory: bytes of one GPU.
        gpu_tflops: the job file's own peak for the run's precision, dense, TFLOP/s.
        efficiency: part of the peak that is reached when nothing waits for the network.
        host_memory: bytes of RAM of one host.
        link: network of one host, one direction, bytes/s.
        gpu_link: between the GPUs of a host, for one of them, one direction, bytes/s.
        host_link: from one GPU to its host's memory, one direction, bytes/s.
        nvme: NVMe of one host, bytes/s.
        storage: where checkpoints go, all hosts together, bytes/s.
        host_mtbf: mean time between failures of one host, seconds.
        restart_time: from noticing a failure to the first step after it, seconds.
    """

    gpu: Gpu | None = None
    device: str = ""
    gpu_memory: int | None = None
    gpu_tflops: float | None = None
    efficiency: float = EFFICIENCY
    host_memory: int | None = None
    link: float | None = None
    gpu_link: float | None = None
    host_link: float | None = None
    nvme: float | None = None
    storage: float | None = None
    host_mtbf: float | None = None
    restart_time: float = 180.0

    @property
    def capability(self) -> float | None:
        """Return CUDA's compute capability, such as 8.0; None when the GPU is not known."""
        return None if self.gpu is None else self.gpu.capability

    def peak(self, precision: Precision) -> float | None:
        """Return the dense peak of one GPU in FLOP/s, or None when it is not known.

        bf16 before Ampere (capability 8.0) has no tensor cores: fp32's peak is taken.
        """
        if self.gpu_tflops is not None:
            return self.gpu_tflops * _TERA
        if self.gpu is None:
            return None
        slow = precision == "fp32" or (precision == "bf16" and self.gpu.capability < 8.0)
        return (self.gpu.tflops_fp32 if slow else self.gpu.tflops_16) * _TERA


def resolve_hardware(spec: HardwareSpec | None, where: str = "hardware") -> Hardware:
    """Return what is known of the hosts: each number of the job file, else that of the GPU's data sheet.

    Args:
        spec: section `hardware`; None when the job file has none.
        where: key path of that section, for the error.

    Raises:
        JobFileError: the table lacks the GPU, and its memory or its peak is not given either.
    """
    if spec is None:
        return Hardware()
    gpu = _gpu(spec, where)
    said = {name: getattr(spec, name) for name in Hardware.__dataclass_fields__ if hasattr(spec, name)}
    said = {name: value for name, value in said.items() if value is not None and name != "gpu"}
    device = "" if spec.gpu is None else "cpu" if spec.gpu.lower() == "cpu" else "cuda"
    known = Hardware(gpu, device)
    if gpu is not None:
        known = replace(known, gpu_memory=gpu.memory, gpu_link=gpu.gpu_link, host_link=gpu.host_link)
    return replace(known, **said)


def _gpu(spec: HardwareSpec, where: str) -> Gpu | None:
    if spec.gpu is None or spec.gpu.lower() == "cpu":
        return None
    try:
        return find_gpu(spec.gpu)
    except ValueError as error:
        if spec.gpu_memory is not None and spec.gpu_tflops is not None:
            return None  # nothing of the table is needed
        fix = "choose one of these, or give gpu_memory and gpu_tflops as well"
        raise JobFileError(Problem(str(error), f"{where}.gpu", spec.gpu, fix)) from None
