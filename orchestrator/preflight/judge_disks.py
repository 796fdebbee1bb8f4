"""Checks of disks: room, rights, a folder that is mounted elsewhere and not here, NVMe speed. Pure."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from orchestrator.preflight.findings import Finding, fold_values, reference, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.preflight.case import Case

_LEAST = {"shm": (64 << 20, 512 << 20)}  # NCCL and data loaders share memory there; Docker gives 64 MiB
_USUALLY = (64 << 20, 1 << 30)
"""Free bytes below which a folder is bad, and below which it is worth a word."""
_SLOW_NVME = 0.5e9  # bytes/s; a SATA disk does as much: offload would wait for it
_NAMES = {"run": "the run directory", "checkpoints": "train.checkpoint_dir", "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108 - names of what is looked at


def shared(case: Case) -> Iterator[Finding]:
    """Tell hosts that read the run directory and whose own word in it does not arrive here."""
    for name, host in case.with_data("shared").items():
        said = host.probes["shared"]
        if said["sees"] and not host.seen:
            what = f"it reads {said['folder']}, but what it writes there is not seen here"
            fix = "mount the disk read-write on every host, or choose a run_root on another"
            yield Finding(name, "shared", "bad", what, fix)
        else:
            yield Finding(name, "shared", "ok")


def room(case: Case) -> Iterator[Finding]:
    """Tell folders without room or rights, and those that are not mounted here as on most hosts."""
    hosts = case.with_data("disks")
    for name, host in hosts.items():
        for what, folder in host.probes["disks"]["folders"].items():
            yield from _folder(name, what, folder)
        yield Finding(name, "disk", "ok")
    for what in ("run", "checkpoints"):
        found = {n: h.probes["disks"]["folders"].get(what, {}).get("existing") for n, h in hosts.items()}
        usual = reference(found) if found else None
        for name, existing in found.items():
            if existing != usual and existing is not None and len(existing) < len(str(usual)):
                text = f"{_NAMES[what]}: {usual} is there on most hosts, and here only {existing}"
                yield Finding(name, "disk", "warn", text, "see whether its disk is mounted here")


def _folder(host: str, kind: str, folder: dict[str, Any]) -> Iterator[Finding]:
    title = _NAMES.get(kind, kind)
    title = title if title == folder["path"] else f"{title} ({folder['path']})"
    least, few = _LEAST.get(kind, _USUALLY)
    if folder["writable"]:
        what = f"{title}: cannot write into {folder['existing']}: {folder['writable']}"
        yield Finding(host, "disk", "bad", what, "make room, or give the user the right to write there")
    elif folder["files"] == 0:
        yield Finding(host, "disk", "bad", f"{title}: no inode is left", "remove some files there")
    elif folder["free"] < few:
        level = "bad" if folder["free"] < least else "warn"
        what = f"{title}: {size_text(folder['free'])} is free"
        fix = "give the container more (--shm-size)" if kind == "shm" else "make room there"
        yield Finding(host, "disk", level, what, fix)  # type: ignore[arg-type]


def nvme(case: Case) -> Iterator[Finding]:
    """Tell NVMe folders that cannot be written, are slow, or slower than on the other hosts."""
    hosts = case.with_data("nvme")
    for path in dict.fromkeys(p for host in hosts.values() for p in host.probes["nvme"]["folders"]):
        found = {n: host.probes["nvme"]["folders"][path] for n, host in hosts.items()}
        yield from _nvme(path, found)


def _nvme(path: str, found: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    usual = statistics.median([_speed(said) for said in found.values() if "failure" not in said] or [0.0])
    for name, said in found.items():
        if "failure" in said:
            fix = "make the folder, or set offload_*_nvme_path to one on a local disk of every host"
            yield Finding(name, "nvme", "bad", f"{path}: {said['failure']}", fix)
        elif _speed(said) < max(_SLOW_NVME, usual / 2):
            what = f"{path}: writes {_rate(said['write'])}, reads {_rate(said['read'])}"
            than = f"; the median of hosts is {_rate(usual)}" if _speed(said) < usual / 2 else ""
            fix = "offload to NVMe waits for this disk: see whether the folder is on one (lsblk, df)"
            yield Finding(name, "nvme", "warn", what + than, fix)
        else:
            yield Finding(name, "nvme", "ok")


def _speed(said: dict[str, Any]) -> float:
    return float(min(said["write"], said["read"]))


def _rate(speed: float) -> str:
    return f"{speed / 1e9:.1f} GB/s" if speed >= 1e9 else f"{speed / 1e6:.0f} MB/s"


def facts(case: Case) -> dict[str, str]:
    """Return how the run directory comes to hosts, and how fast NVMe folders are."""
    hosts = [host.name for host in case.hosts]
    seen = {
        n: "shared" if h.probes["shared"]["sees"] else "sent" for n, h in case.with_data("shared").items()
    }
    found = {"run directory": fold_values(seen, hosts)}
    slowest: dict[str, str] = {}
    for name, host in case.with_data("nvme").items():
        speeds = [said for said in host.probes["nvme"]["folders"].values() if "failure" not in said]
        if speeds:
            worst = min(speeds, key=_speed)
            slowest[name] = f"{_rate(worst['write'])} written, {_rate(worst['read'])} read"
    if len(slowest) <= 8:
        found["NVMe"] = ", ".join(f"{name}: {text}" for name, text in slowest.items())
    return found
