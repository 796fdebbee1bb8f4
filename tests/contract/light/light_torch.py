"""A `torch` that is large enough for torchrun: its own code and its C++ store are the real ones.

`import torch` (2.13) takes a core 1.7 s, of which torchrun's process needs a quarter: it computes nothing.
With two launchers a run, in some hundreds of runs, nothing else was as expensive in the whole suite.
"""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

STORES = ("FileStore", "PrefixStore", "Store", "TCPStore")
ERRORS = ("DistBackendError", "DistError", "DistNetworkError", "DistStoreError")


def stand_in() -> None:
    """Put the small torch where imports find it; what it lacks shows as an ImportError or AttributeError."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    (folder,) = map(Path, spec.submodule_search_locations or ())
    torch = package("torch", folder)
    ctypes.CDLL(str(folder / "lib/libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
    sys.modules["numpy"] = None  # type: ignore[assignment]  # which C++ imports if it can: a quarter of the rest
    sys.setdlopenflags(os.RTLD_LAZY)  # most of its 40,000 functions are never called
    from torch import _C

    leave_at_once()
    torch._C = _C
    torch.cuda = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
    torch.device = torch.dtype = torch.nn = type("InAnnotations", (), {"Module": object})
    add_distributed(folder, _C)
    add_multiprocessing(folder, _C)
    package("torch.utils", folder / "utils")
    data = package("torch.utils.data", folder / "utils/data")
    sampler = package("torch.utils.data.distributed", folder / "utils/data")
    data.Dataset = sampler.DistributedSampler = type("Unused", (), {})


def leave_at_once() -> None:
    """End this process without what libtorch takes apart at its end, operator by operator."""
    libc = ctypes.CDLL(None)
    libc.on_exit(libc._exit, None)  # registered last, so called first, with the exit code


def add_distributed(folder: Path, compiled: ModuleType) -> None:
    """Make `torch.distributed` of what C++ holds of it."""
    made = package("torch.distributed", folder / "distributed")
    assert compiled._c10d_init()
    from torch._C import _distributed_c10d

    vars(made).update({name: getattr(_distributed_c10d, name) for name in STORES})
    vars(made).update({name: getattr(compiled, f"_{name}") for name in ERRORS})


def add_multiprocessing(folder: Path, compiled: ModuleType) -> None:
    """Make `torch.multiprocessing` of Python's own, without the tensors."""
    made = package("torch.multiprocessing", folder / "multiprocessing")
    vars(made).update({name: getattr(multiprocessing, name) for name in multiprocessing.__all__})
    made._set_thread_name = compiled._set_thread_name


def package(name: str, folder: Path) -> ModuleType:
    """Return a package without its `__init__`; what lies in its folder can be imported from it."""
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None, is_package=True)
    made.__path__ = made.__spec__.submodule_search_locations = [str(folder)]
    sys.modules[name] = made
    above, _, last = name.rpartition(".")
    if above:
        setattr(sys.modules[above], last, made)
    return made
