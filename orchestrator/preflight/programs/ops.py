"""Tells whether DeepSpeed's operators are ready on this host, and builds them: `ops REQUEST`.

The request: `ops` (names by device: {"cuda": [...], "cpu": [...]}), `build` (names to build first) and
`seconds` (limit of all builds together). What is installed is read from files, as importing torch takes
seconds; only building imports it, in a process of its own.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List

from orchestrator.preflight.probes import answers

from .building import build

_LIBAIO = ("/usr/include/libaio.h", "/usr/local/include/libaio.h")
_INFO = "git_version_info_installed.py"  # what DeepSpeed's setup.py writes
_GPUS = "/proc/driver/nvidia/gpus"


def main(request: Dict[str, Any]) -> int:
    """Build what is asked for, then tell how everything is."""
    torch, deepspeed = _torch(), _deepspeed()
    device = _device(torch)
    names = request["ops"].get(device, [])
    folder = cache_folder(torch)
    signal.signal(signal.SIGTERM, _end)
    wanted = [name for name in names if name in request.get("build", [])]
    over = time.monotonic() + request.get("seconds", 600)
    built = {name: build(name, folder, max(0.0, over - time.monotonic())) for name in wanted}
    data = {
        "device": device,
        "torch": torch.get("version", ""),
        "torch_cuda": torch.get("cuda") or "",
        "deepspeed": deepspeed.get("version", ""),
        "folder": folder,
        "disk": disk_of(folder),
        "cpu": _cpu(),
        "arch_list": os.environ.get("TORCH_CUDA_ARCH_LIST", ""),
        "tools": _tools(torch),
        "ops": {name: _state(name, folder, deepspeed) for name in names},
        "prebuilt_for": [deepspeed.get("accelerator_name", ""), deepspeed.get("torch_info", {})],
        "built": built,
    }
    answers.tell({"probe": "ops", "data": data})
    return 0


def _end(number: int, _: Any) -> None:
    """End by an exception, so that no builder or lock stays behind; a second signal changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _torch() -> Dict[str, Any]:
    """Return torch's version and that of its CUDA, from torch/version.py; nothing where there is no torch."""
    return _assigned("torch", "version.py", ("__version__", "cuda"), {"__version__": "version"})


def _deepspeed() -> Dict[str, Any]:
    names = ("version", "installed_ops", "accelerator_name", "torch_info")
    return _assigned("deepspeed", _INFO, names, {})


def _assigned(package: str, file: str, names: Any, called: Dict[str, str]) -> Dict[str, Any]:
    """Return what a file of a package assigns to names, for literals; the package is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return {}
    try:
        with open(os.path.join(next(iter(spec.submodule_search_locations)), file), encoding="utf-8") as text:
            tree = ast.parse(text.read())
    except (OSError, SyntaxError):
        return {}
    found: Dict[str, Any] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and target.id in names and isinstance(value, ast.expr):
                try:
                    found[called.get(target.id, target.id)] = ast.literal_eval(value)
                except ValueError:
                    continue
    return found


def _device(torch: Dict[str, Any]) -> str:
    """Return what DeepSpeed's accelerator will be here: cuda, or cpu."""
    given = os.environ.get("DS_ACCELERATOR")
    if given:
        return given
    return "cuda" if torch.get("cuda") and os.path.isdir(_GPUS) and os.listdir(_GPUS) else "cpu"


def cache_folder(torch: Dict[str, Any]) -> str:
    """Return where torch keeps what it compiles (torch/utils/cpp_extension.py, _get_build_directory)."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    if given:
        return os.path.abspath(given)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cuda = torch.get("cuda")
    tag = "py{}{}{}".format(*sys.version_info[:2], getattr(sys, "abiflags", ""))
    device = "cu" + cuda.replace(".", "") if cuda else "cpu"
    return os.path.join(os.path.realpath(os.path.join(home, "torch_extensions")), f"{tag}_{device}")


def disk_of(folder: str) -> Dict[str, str]:
    """Return the kind of a folder's disk and a key that two hosts have alike exactly if they share it.

    The folder itself need not exist yet: its nearest ancestor counts. A network disk is known by its source
    (server:/export), a local one by the boot id of the machine that has it.
    """
    there = os.path.realpath(folder)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    source, kind = _mount(there)
    info = os.stat(there)
    inside = "/".join([str(info.st_ino), os.path.relpath(os.path.realpath(folder), there)])
    if ":" in source or source.startswith("//"):
        return {"kind": kind, "key": f"{source}|{inside}"}
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        machine = file.read().strip()
    shared = kind in ("lustre", "gpfs", "beegfs", "ceph", "wekafs", "pvfs2", "virtiofs", "9p")
    return {"kind": kind, "key": f"{source if shared else machine}|{'' if shared else info.st_dev}|{inside}"}


def _mount(path: str) -> List[str]:
    """Return source and kind of the file system a path is on, from /proc/self/mounts."""
    best = ["", "", ""]
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            source, point, kind = line.split()[:3]
            point = point.replace("\\040", " ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best[0]):
                best = [point, source, kind]
    return best[1:]


def _cpu() -> str:
    """Return the processor's model: what is compiled with -march=native runs only on its like."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            match = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    except OSError:
        return ""
    return match[1].strip() if match else os.uname().machine


def _tools(torch: Dict[str, Any]) -> Dict[str, Any]:
    """Return versions of compilers by name; "" for what is not there."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or _cuda_home()
    nvcc = os.path.join(home, "bin", "nvcc") if home else ""
    compiler = os.environ.get("CXX") or "g++"
    return {
        "compiler": compiler,
        "g++": _version([compiler, "-dumpfullversion", "-dumpversion"], r"(\d+(?:\.\d+)*)"),
        "ninja": _version(["ninja", "--version"], r"(\d+(?:\.\d+)*)"),
        "nvcc": _version([nvcc, "-V"], r"release (\d+\.\d+)") if nvcc and torch.get("cuda") else "",
        "cuda_home": home,
        "curand": _has_curand(home),
        "libaio": any(map(os.path.exists, _LIBAIO)) or "aio" in os.environ.get("LDFLAGS", ""),
    }


def _cuda_home() -> str:
    """Return what torch takes for CUDA_HOME when it is not set: beside nvcc, or /usr/local/cuda."""
    nvcc = shutil.which("nvcc")
    if nvcc:
        return os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    return "/usr/local/cuda" if os.path.isdir("/usr/local/cuda") else ""


def _has_curand(home: str) -> bool:
    return any(
        os.path.exists(os.path.join(home, "include", name)) for name in ("curand_kernel.h", "curand.h")
    )


def _version(words: List[str], pattern: str) -> str:
    try:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(pattern, done.stdout.decode("utf-8", "replace"))
    return match[1] if match and done.returncode == 0 else ""


def _state(name: str, folder: str, deepspeed: Dict[str, Any]) -> Dict[str, Any]:
    """Return whether an operator is prebuilt or compiled already, and who holds its lock since when."""
    own = os.path.join(folder, name)
    return {
        "prebuilt": bool(deepspeed.get("installed_ops", {}).get(name)),
        "cached": os.path.exists(os.path.join(own, f"{name}.so")),
        "folder": own,
        "locked": _locked(own),
    }


def _locked(own: str) -> Any:
    """Return seconds since anything was written while a lock is there; None without a lock.

    torch's lock is a file that its owner removes (utils/file_baton.py). Where the owner was killed, everybody
    who wants the operator waits for ever.
    """
    if not os.path.exists(os.path.join(own, "lock")):
        return None
    try:
        paths = [own, *(os.path.join(own, name) for name in os.listdir(own))]
        newest = max(os.stat(path).st_mtime for path in paths)
    except OSError:
        return None  # its owner has just finished
    return round(max(0.0, time.time() - newest), 1)
