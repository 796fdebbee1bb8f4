"""From a job to the facts that its rules look at: the only part that looks at this machine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import JobFileError
from orchestrator.rules.facts import HPZ, QGZ, Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.hosts import HostPool
    from orchestrator.job import ClusterSpec, JobSpec, LoadedJob

_LONGEST_SCRIPT = 2_000_000  # bytes; what is longer is no script that anybody has written
# What the drivers of NVIDIA, AMD, Intel, Huawei, Habana and WSL leave in the file system.
_DEVICES = ("/dev/kfd", "/dev/dri/render*", "/dev/davinci*", "/dev/accel*", "/dev/hl*", "/dev/dxg")
_NVIDIA = ("/proc/driver/nvidia/version", "/dev/nvidia0")


def gather(job: LoadedJob, pool: HostPool, config: Mapping[str, Any] | None) -> Facts:
    """Return what is known of a job here and now; nothing is asked of any host, and nothing heavy imported.

    Args:
        job: the job file.
        pool: the hosts and slots of the run.
        config: DeepSpeed's configuration as it will be written; None when the job has none.
    """
    spec = job.spec
    device = _device(spec)
    facts = Facts(
        spec=spec,
        pool=pool,
        config=config or {},
        device=device,
        deepspeed=_deepspeed_version(spec),
        pretrained_in=_pretrained_in(job),
        fp16_on_cpu=_fp16_on_cpu() if device == "cpu" and spec.cluster.backend == "local" else None,
        script=_script(job),
        places=_places(job),
    )
    if spec.hardware is not None:
        from orchestrator.estimate.hardware import Hardware, resolve_hardware  # noqa: PLC0415 - most jobs do not say

        try:
            known = resolve_hardware(spec.hardware)
        except JobFileError:
            known = Hardware()  # a GPU that the table lacks matters to estimates alone: `plan` tells of it
        facts = replace(facts, compute_capability=known.capability, gpu_memory=known.gpu_memory)
        facts = replace(facts, host_memory=known.host_memory)
    if spec.model is not None:
        facts = _with_memory(facts)
    return _with_hosts(facts) if facts.active(HPZ, QGZ) else facts


def _with_memory(facts: Facts) -> Facts:
    """Add what a GPU and a host need and a simulated host has, where the job file has the model's numbers."""
    from orchestrator import estimate  # noqa: PLC0415 - most jobs do not say

    shape = None if facts.spec.model is None else estimate.shape_of(facts.spec.model)
    here = facts.host_memory or _share_of_this_machine(facts)
    if shape is None or (facts.gpu_memory is None and here is None):
        return replace(facts, host_memory=here)
    known = shape, estimate.settings_of(facts.config, facts.spec), estimate.World.of(facts.pool)
    gpu = None if facts.gpu_memory is None else estimate.gpu_memory(*known).total
    host = estimate.host_memory(*known).total
    return replace(facts, gpu_memory_needed=gpu, host_memory=here, host_memory_needed=host)


def _share_of_this_machine(facts: Facts) -> int | None:
    """Return the bytes that a simulated host has: they share the memory of this machine."""
    if facts.spec.cluster.backend != "local" or facts.spec.cluster.login is not None:
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(facts.pool.hosts)
    except (OSError, ValueError):
        return None


def _with_hosts(facts: Facts) -> Facts:
    """Add what ZeRO++ needs to know of the hosts besides the pool; it takes another look at the hostfile."""
    cluster = facts.spec.cluster
    unfiltered = facts.pool.world_size
    if cluster.include or cluster.exclude:
        unfiltered = _unfiltered_world(cluster, facts.pool) or unfiltered
    return replace(facts, gpus_per_host=_gpus_per_host(cluster), unfiltered_world=unfiltered)


def _device(spec: JobSpec) -> str:
    """Return what the ranks compute on: what the job file says, else what a local run finds here."""
    asked = spec.train.env.get("DS_ACCELERATOR")  # DeepSpeed takes it without a look at the machine
    if asked:
        return asked
    if spec.hardware is not None and spec.hardware.gpu is not None:
        return "cpu" if spec.hardware.gpu.lower() == "cpu" else "cuda"
    return _local_device() if spec.cluster.backend == "local" else ""


def _local_device() -> str:
    if any(Path(path).exists() for path in _NVIDIA):
        return "cuda"
    found = any(next(Path("/").glob(pattern.lstrip("/")), None) for pattern in _DEVICES)
    return "" if found else "cpu"


def _fp16_on_cpu() -> bool:
    try:
        return "avx512_fp16" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _deepspeed_version(spec: JobSpec) -> str | None:
    """Return the version that is installed beside us, where the ranks run this very Python."""
    elsewhere = (spec.train.python, spec.cluster.login, spec.container)
    if spec.deepspeed is None or any(each is not None for each in elsewhere):
        return None
    try:
        return metadata.version("deepspeed")
    except metadata.PackageNotFoundError:
        return None


def _gpus_per_host(cluster: ClusterSpec) -> int | None:
    """Return the GPUs of each host: what Slurm is asked for, or the most that the hostfile gives one."""
    if cluster.backend == "slurm":
        from orchestrator.slurm.options import gpu_count  # noqa: PLC0415 - for this backend alone

        return gpu_count(cluster.slurm)
    if cluster.hostfile is None:
        return None
    from orchestrator.hosts.pool import full_pool  # noqa: PLC0415 - few jobs need it

    return max(len(host.slots) for host in full_pool(cluster).hosts)


def _unfiltered_world(cluster: ClusterSpec, pool: HostPool) -> int | None:
    """Return how many ranks there would be without include and exclude; None if there would be no run."""
    if cluster.backend == "slurm":
        slots = cluster.slots or _gpus_per_host(cluster)
        return slots and slots * (cluster.nodes or len(pool.hosts))
    from orchestrator.hosts.pool import resolve_pool  # noqa: PLC0415 - few jobs need it

    try:
        return resolve_pool(cluster.model_copy(update={"include": None, "exclude": None})).world_size
    except JobFileError:  # without the filter, a host has too few slots
        return None


def _pretrained_in(job: LoadedJob) -> str | None:
    """Return the arithmetic that a model's own config.json names, where it lies on this machine."""
    model = job.spec.model
    if model is None or model.pretrained_in is not None or model.config is None:
        return model.pretrained_in if model else None
    try:
        path = job.base_dir / Path(model.config).expanduser()
        data = json.loads((path / "config.json" if path.is_dir() else path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return None
    from orchestrator.huggingface.count import precision  # noqa: PLC0415 - few jobs name a model that is here

    said = (data.get("dtype") or data.get("torch_dtype")) if isinstance(data, dict) else None
    return precision(said)


def _places(job: LoadedJob) -> dict[tuple[str, ...], str]:
    """Return where each key of the DeepSpeed file stands, as `file:line`."""
    section = job.spec.deepspeed
    if section is None or section.config_file is None:
        return {}
    from orchestrator.configs.json_source import key_lines  # noqa: PLC0415 - most jobs have no such file

    path = job.base_dir / section.config_file.expanduser()
    return {keys: f"{path}:{line}" for keys, line in key_lines(path).items()}


def _script(job: LoadedJob) -> str | None:
    """Return the text of the training script, where it is a Python file that can be read here."""
    path = job.spec.train.script_path(job.base_dir)
    try:
        if path is None or path.stat().st_size > _LONGEST_SCRIPT:
            return None
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
