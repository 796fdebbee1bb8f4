"""What can be seen to be wrong on a host before any rank is started."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from typing import Any

from . import commands

_NVIDIA = "/proc/driver/nvidia/gpus"
_PACKAGES = ("torch", "deepspeed", "accelerate", "transformers", "numpy")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def count_gpus() -> int:
    """Return how many NVIDIA GPUs the kernel driver shows on this host."""
    try:
        return len(os.listdir(_NVIDIA))
    except OSError:
        return 0


def problems(config: dict[str, Any], devices: list[int]) -> list[str]:
    """Return what would make every rank of this host fail, each with its fix."""
    found = _workdir(config) + _modules(config) + _gpus(devices)
    return [text for text in found if text]


def _workdir(config: dict[str, Any]) -> list[str]:
    workdir, script = config["workdir"], config["script"]
    if not os.path.isdir(workdir):
        return [f"the workdir {workdir} does not exist here; set train.snapshot: true to send it along"]
    if script is None:
        return []
    path = os.path.join(workdir, script)
    if not os.path.isfile(path):
        return [f"the script {path} does not exist here; correct train.script or set train.snapshot: true"]
    return [] if os.access(path, os.R_OK) else [f"the script {path} may not be read by {_user()}"]


def _modules(config: dict[str, Any]) -> list[str]:
    if shutil.which(config["python"]) is None:
        return [f"train.python {config['python']!r} is not a program here"]
    needed = {commands.NEEDED[config["launcher"]]: f"launcher {config['launcher']} needs"}
    if config["deepspeed"]:
        needed.setdefault("deepspeed", "section deepspeed of the job file is for")
    return [
        f"{sys.executable} has no module {module!r}, which {who}; "
        "install it there, or set train.python or train.setup"
        for module, who in needed.items()
        if importlib.util.find_spec(module) is None
    ]


def versions() -> dict[str, str]:
    """Return the versions of what training depends on, by package; what is not installed is absent."""
    known = {package: version_of(package) for package in _PACKAGES}
    return {"python": sys.version.split()[0], **{name: version for name, version in known.items() if version}}


def version_of(package: str) -> str:
    """Return the version of an installed package; "" for one that is not."""
    from importlib import metadata  # noqa: PLC0415 - it takes longer to import than all of this module

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return ""


def _gpus(devices: list[int]) -> list[str]:
    given = os.environ.get(_VISIBLE)
    gpus = count_gpus() if given is None else len(_split(given))
    if not gpus or os.environ.get("DS_ACCELERATOR") == "cpu":
        return []  # ranks on the CPU: a slot is just a rank
    if max(devices) >= gpus:
        shown = f"there {'is' if gpus == 1 else 'are'}" if given is None else f"{_VISIBLE}={given} shows"
        there = f"{gpus} GPUs (slots 0-{gpus - 1})" if gpus > 1 else "1 GPU (slot 0)"
        return [f"slot {max(devices)} is asked for but {shown} {there}"]
    return []


def visible_devices(environ: dict[str, str], devices: list[int]) -> str:
    """Return CUDA_VISIBLE_DEVICES for a host's ranks.

    Slots are indexes into what the host shows us: where the variable is set already (a shared machine, a
    scheduler), into that list; where it is set to nothing, the user wants no GPU and gets none.
    """
    given = environ.get(_VISIBLE)
    if given is None:
        return ",".join(map(str, devices))
    shown = _split(given)
    return ",".join(shown[device] for device in devices) if shown else given


def device_names(environ: dict[str, str], devices: list[int]) -> list[str]:
    """Return what CUDA calls the device of each slot here; nothing where slots are asked for that are not."""
    try:
        return [name for name in visible_devices(environ, devices).split(",") if name]
    except IndexError:
        return []


def _split(given: str) -> list[str]:
    """Return the devices in a value of CUDA_VISIBLE_DEVICES; -1 hides itself and what follows."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    return names[: names.index("-1")] if "-1" in names else names


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
