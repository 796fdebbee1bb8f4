"""What is installed for train.python here, read from the names of files: importing torch takes seconds."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from orchestrator.agent import checks

_PACKAGES = ("torch", "deepspeed", "accelerate", "transformers", "numpy", "triton")
_INFO = re.compile(r"(?P<name>[A-Za-z0-9_.]+?)-(?P<version>[^-]+)(-py[0-9.]+)?\.(dist|egg)-info\Z")
_VARIABLES = ("CUDA_HOME", "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "TORCH_EXTENSIONS_DIR", "HOME")


def job(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return what an agent would refuse to start for: the very checks of a run."""
    return {"problems": checks.problems(config, host["devices"])}


def versions(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return python's path and version, those of packages, and torch's own CUDA version."""
    del config, host
    found = installed(sys.path)
    torch = found.pop(":torch", "")
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "packages": found,
        "torch_cuda": _torch_cuda(torch),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "libc": (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")[2],
        "kernel": os.uname().release,
    }


def installed(folders: list[str]) -> dict[str, str]:
    """Return package -> version from the names of `*.dist-info` folders; the first on the path counts.

    importlib.metadata says the same, and takes longer to import than all of this program. The folder that
    holds torch is there as `:torch`.
    """
    found: dict[str, str] = {}
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for match in filter(None, map(_INFO.match, names)):
            name = match["name"].lower()
            if name in _PACKAGES:
                found.setdefault(name, match["version"])
        if "torch" in names and os.path.isfile(os.path.join(folder, "torch", "version.py")):
            found.setdefault(":torch", os.path.join(folder, "torch"))
    return found


def _torch_cuda(folder: str) -> str | None:
    """Return the CUDA version that torch was built with, from torch/version.py; None for none, or no torch.

    torch 2.13: `cuda: Optional[str] = None`; with CUDA `= '12.6'`.
    """
    try:
        with open(os.path.join(folder, "version.py"), encoding="utf-8") as file:
            match = re.search(r"^cuda\b[^=\n]*=\s*'([0-9.]+)'", file.read(), re.MULTILINE)
    except OSError:
        return None
    return match[1] if match else None
