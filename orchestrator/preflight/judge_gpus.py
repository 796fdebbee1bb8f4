"""Checks of GPUs: enough of them, of one kind, healthy, free, and known to torch and driver. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.preflight.findings import Finding, fold_values, reference, size_text
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.preflight.case import Case
    from orchestrator.preflight.findings import Host

_OCCUPIED = 0.05  # of a GPU's memory: more than a display or a monitor takes
_MIB = 1 << 20
_REPLACE = "have it replaced, and leave its slot out until then (cluster.exclude)"


def gpus(case: Case) -> Iterator[Finding]:
    """Tell hosts whose GPUs are missing, of another kind, broken, occupied, or beyond torch or driver."""
    hosts = case.with_data("gpus")
    shown = {name: _described(host) for name, host in hosts.items()}
    usual = reference(shown) if shown else ""
    expected = any(host.probes["gpus"]["count"] for host in hosts.values()) or _wanted(case)
    for name, host in hosts.items():
        wrong = list(_of_host(host, expected=expected))
        yield from wrong
        if not wrong and shown[name] != usual:
            fix = "a run is as fast as its slowest GPU: use hosts of one kind, or cluster.include"
            yield Finding(name, "gpus", "warn", f"has {shown[name]}; most hosts have {usual}", fix)
        yield Finding(name, "gpus", "ok")


def _wanted(case: Case) -> bool:
    hardware = case.spec.hardware
    return hardware is not None and hardware.gpu not in (None, "cpu")


def _on_cpu(host: Host) -> bool:
    """Tell whether the ranks of a host are meant to run on its CPU."""
    variables: dict[str, str] = host.probes.get("software", {}).get("variables", {})
    return variables.get("DS_ACCELERATOR") == "cpu"


def _described(host: Host) -> str:
    """Return a host's GPUs in words: 8 x NVIDIA H200 (140 GiB)."""
    rows = host.probes["gpus"]["gpus"]
    if not rows:
        count = host.probes["gpus"]["count"]
        return counted(count, "GPU") if count else "no GPU"
    kinds = {f"{row['name']} ({_gib(row)})" for row in rows}
    return f"{len(rows)} x {' and '.join(sorted(kinds))}"


def _gib(row: dict[str, str]) -> str:
    return size_text(_number(row["memory.total"]) * _MIB)


def _number(text: str) -> float:
    """Return a number of nvidia-smi's; 0 for [N/A]."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _of_host(host: Host, *, expected: bool) -> Iterator[Finding]:
    if _on_cpu(host):
        return
    said = host.probes["gpus"]
    if not said["count"]:
        if expected:
            fix = "load the driver (nvidia-smi), ask Slurm for GPUs, or set DS_ACCELERATOR: cpu in train.env"
            yield Finding(host.name, "gpus", "bad", "no GPU is visible here", fix)
        return
    if said.get("failure"):
        yield Finding(host.name, "gpus", "bad", said["failure"], "repair the driver, or leave the host out")
    yield from _torch(host)
    for row in _used_rows(host):
        yield from _of_gpu(host, row)


def _used_rows(host: Host) -> list[dict[str, str]]:
    """Return the rows of the GPUs that the job's slots are: slot k is the k-th that is visible."""
    rows: list[dict[str, str]] = host.probes["gpus"]["gpus"]
    visible = host.probes["gpus"].get("visible")
    if visible is None:
        return [row for row in rows if int(_number(row["index"])) in host.plan.devices]
    entries = [entry.strip() for entry in visible.split(",") if entry.strip()]
    mine = [entries[device] for device in host.plan.devices if device < len(entries)]
    # nvidia-smi shows all GPUs whatever is visible; inside Slurm's cgroup they are numbered anew
    return [row for row in rows if row["index"] in mine or any(map(row["uuid"].startswith, mine))] or rows


def _torch(host: Host) -> Iterator[Finding]:
    """Compare torch's CUDA with the driver's: a driver serves every minor version of its own major one."""
    software = host.probes.get("software", {})
    built, driver = software.get("torch_cuda"), host.probes["gpus"].get("cuda")
    torch = software.get("packages", {}).get("torch")
    if torch and built is None and "+rocm" not in torch:
        fix = "install a build of torch with CUDA, or set DS_ACCELERATOR: cpu in train.env"
        yield Finding(host.name, "gpus", "bad", f"torch {torch} is built without CUDA", fix)
    elif built and driver and int(built.split(".")[0]) > int(driver.split(".")[0]):
        what = f"torch is built for CUDA {built} and the driver serves up to CUDA {driver}"
        fix = f"update the driver, or install a torch for CUDA {driver.split('.')[0]}"
        yield Finding(host.name, "gpus", "bad", what, fix)


def _of_gpu(host: Host, row: dict[str, str]) -> Iterator[Finding]:
    index = row["index"]
    if "Yes" in _remapped(host, row, "failure"):
        what, fix = f"GPU {index} has faulty memory that it cannot retire", _REPLACE
        yield Finding(host.name, "gpus", "bad", what, fix)
    elif "Yes" in [row["retired_pages.pending"], *_remapped(host, row, "pending")]:
        what, fix = f"GPU {index} has faulty memory to retire", f"reset it: nvidia-smi --gpu-reset -i {index}"
        yield Finding(host.name, "gpus", "bad", what, fix)
    errors = _number(row["ecc.errors.uncorrected.volatile.total"])
    if errors:
        what = f"GPU {index} had {errors:.0f} uncorrected memory errors since its driver was loaded"
        yield Finding(host.name, "gpus", "bad", what, f"reset it: nvidia-smi --gpu-reset -i {index}")
    used, total = _number(row["memory.used"]), _number(row["memory.total"])
    if total and used / total > _OCCUPIED:
        what = f"GPU {index} is in use: {size_text(used * _MIB)} of {_gib(row)}{_by(host, row)}"
        fix = "wait for it, end what runs there, or leave the slot out (cluster.exclude)"
        yield Finding(host.name, "gpus", "bad", what, fix)


def _remapped(host: Host, row: dict[str, str], state: str) -> list[str]:
    """Return whether memory rows of a GPU are pending (wait to be replaced), or failure: Yes, No or [N/A]."""
    found = [each for each in host.probes["gpus"].get("remapped", []) if each["gpu_uuid"] == row["uuid"]]
    return [each[f"remapped_rows.{state}"] for each in found]


def _by(host: Host, row: dict[str, str]) -> str:
    """Return who occupies a GPU, as far as nvidia-smi shows (in a container it shows nobody)."""
    there = [p for p in host.probes["gpus"].get("processes", []) if p["gpu_uuid"] == row["uuid"]]
    told = ", ".join(f"pid {process['pid']} {process['process_name']}" for process in there[:3])
    return f" by {told}" if told else ""


def facts(case: Case) -> dict[str, str]:
    """Return GPUs, driver and CUDA, folded over hosts."""
    hosts = [host.name for host in case.hosts]
    said: dict[str, dict[str, Any]] = {n: host.probes["gpus"] for n, host in case.with_data("gpus").items()}
    drivers = {
        n: f"{s['gpus'][0]['driver_version']} (CUDA {s['cuda']})" for n, s in said.items() if s["gpus"]
    }
    shown = {name: _described(host) for name, host in case.with_data("gpus").items()}
    return {"GPUs": fold_values(shown, hosts), "driver": fold_values(drivers, hosts)}
