"""What can be seen to be wrong on a host before any rank is started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from typing import Any

from . import commands

_NVIDIA = "/proc/driver/nvidia/gpus"


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
    module = commands.MODULES[config["launcher"]]
    if importlib.util.find_spec(module) is not None:
        return []
    needs = f"{sys.executable} has no module {module!r}, which launcher {config['launcher']} needs"
    return [f"{needs}; install it there, or set train.python or train.setup"]


def _gpus(devices: list[int]) -> list[str]:
    gpus = count_gpus()
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return []  # the job is told to leave the GPUs alone
    if gpus and max(devices) >= gpus:
        return [f"slot {max(devices)} is asked for but there are {gpus} GPUs (0-{gpus - 1})"]
    return []


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())
