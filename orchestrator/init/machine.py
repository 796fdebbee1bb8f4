"""What this machine has that a job file could use: GPUs, Slurm, pdsh, hostfiles, scripts, configurations.

Looking takes three short commands at most and imports none of the tools that it looks for.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PATIENCE = 5.0  # seconds for nvidia-smi or sinfo; both answer in less than one, or hang
_DRIVER = Path("/proc/driver/nvidia/gpus")
_HOSTFILES = ("hostfile", "hosts", "hostfile.txt", "/job/hostfile")  # /job/hostfile is DeepSpeed's default
_DS_KEYS = ("zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu")
_SCRIPT_NAMES = ("train", "finetune", "fine_tune", "pretrain", "run", "main", "sft")
_LARGEST = 2**20  # bytes of a file that is looked into
_SINFO = ("--noheader", "--format=%P|%D|%G|%l|%c")
_NVIDIA_SMI = ("--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine; memory in MiB and CUDA's compute capability, None where not known."""

    name: str
    memory: int | None = None
    capability: float | None = None


@dataclass(frozen=True)
class Partition:
    """A partition of Slurm: nodes in all, GPUs of a node (`h100:8`, or nothing), its longest time."""

    name: str
    nodes: int
    gpus: str = ""
    time: str = ""
    cpus: int = 0
    default: bool = False


@dataclass(frozen=True)
class Machine:
    """What was found; names of files are as a job file in `folder` would write them.

    Attributes:
        folder: where the job file goes.
        partitions: of Slurm; none where sinfo is not there, or gets no answer.
        accelerate: what Accelerate's default configuration says, empty without one.
        accelerate_path: that file.
        launchers: those of torchrun, deepspeed and accelerate that are installed beside this program.
    """

    folder: Path
    cpus: int = 1
    gpus: tuple[Gpu, ...] = ()
    partitions: tuple[Partition, ...] = ()
    pdsh: bool = False
    hostfiles: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    ds_configs: tuple[str, ...] = ()
    accelerate_path: str = ""
    accelerate: Mapping[str, Any] = field(default_factory=dict)
    launchers: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)


def look(folder: Path, environ: Mapping[str, str]) -> Machine:
    """Return what this machine has.

    Args:
        folder: where the job file will stand.
        environ: the environment, for the PATH, Slurm's variables and Hugging Face's folders.
    """
    path = environ.get("PATH")
    accelerate_path, accelerate = _accelerate(environ)
    return Machine(
        folder=folder,
        cpus=len(os.sched_getaffinity(0)),
        gpus=tuple(_gpus(path)),
        partitions=parse_sinfo(_output("sinfo", _SINFO, path)),
        pdsh=shutil.which("pdsh", path=path) is not None,
        hostfiles=tuple(name for name in _HOSTFILES if (folder / name).is_file()),
        scripts=tuple(_scripts(folder)),
        ds_configs=tuple(path.name for path in sorted(folder.glob("*.json")) if _is_ds_config(path)),
        accelerate_path=accelerate_path,
        accelerate=accelerate,
        launchers=frozenset(_launchers()),
        environ=environ,
    )


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Read `--query-gpu=name,memory.total,compute_cap --format=csv,noheader,nounits`.

    A line is `NVIDIA H100 80GB HBM3, 81559, 9.0`; drivers before 510 know no compute_cap and print an error.
    """
    rows = [line.rsplit(", ", 2) for line in text.splitlines()]
    return tuple(Gpu(row[0], _number(row[1], int), _number(row[2], float)) for row in rows if len(row) == 3)


def parse_sinfo(text: str) -> tuple[Partition, ...]:
    """Read lines such as `gpu*|16|gpu:h100:8(S:0-1)|1-00:00:00|96`, one for each kind of node."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        row = line.strip().split("|")
        if len(row) != 5:
            continue
        name = row[0].rstrip("*")
        cpus = int(row[4].rstrip("+") or 0)  # `96+` is 96 or more
        part = Partition(name, int(row[1]), _gres(row[2]), row[3], cpus, row[0].endswith("*"))
        before = found.get(name)
        if before is not None:
            more, gpus = before.nodes + part.nodes, before.gpus or part.gpus
            part = Partition(name, more, gpus, part.time, min(before.cpus, cpus), part.default)
        found[name] = part
    return tuple(found.values())


def _gres(text: str) -> str:
    """Return the GPUs of `gpu:h100:8(S:0-1),shard:16` as --gpus-per-node has them: h100:8."""
    match = re.search(r"(?:^|,)gpu:((?:[\w.-]+:)?\d+)", text)
    return match[1] if match else ""


def _number(text: str, kind: type[Any]) -> Any:
    try:
        return kind(text)
    except ValueError:  # "[N/A]", which is how nvidia-smi says that it does not know
        return None


def _output(program: str, options: Iterable[str], path: str | None) -> str:
    """Return what a program of the PATH prints; nothing where it is not there, fails, or hangs."""
    found = shutil.which(program, path=path)
    if found is None:
        return ""
    try:
        done = subprocess.run(
            [found, *options], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _gpus(path: str | None) -> Iterator[Gpu]:
    found = parse_nvidia_smi(_output("nvidia-smi", _NVIDIA_SMI, path))
    yield from found
    for information in () if found else sorted(_DRIVER.glob("*/information")):  # it tells the model alone
        match = re.search(r"^Model:\s*(.+)$", information.read_text(errors="replace"), re.MULTILINE)
        yield Gpu(match[1] if match else "NVIDIA GPU")


def _scripts(folder: Path) -> list[str]:
    """Return Python files that look like training, the likeliest first."""
    names = [path.name for path in folder.glob("*.py") if path.is_file()]
    ranked = [(_likeness(name), name) for name in names]
    return [name for likeness, name in sorted(ranked) if likeness < len(_SCRIPT_NAMES)]


def _likeness(name: str) -> int:
    return next(
        (place for place, word in enumerate(_SCRIPT_NAMES) if word in name.lower()), len(_SCRIPT_NAMES)
    )


def _is_ds_config(path: Path) -> bool:
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < _LARGEST else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and any(key in data for key in _DS_KEYS)


def _accelerate(environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return Accelerate's default configuration, found as its `commands/config/config_args.py` does."""
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(environ.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    for name in ("default_config.yaml", "default_config.yml", "default_config.json"):
        path = home / "accelerate" / name
        if path.is_file():
            return str(path), _read_mapping(path)
    return "", {}


def _read_mapping(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - only where there is such a file

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def _launchers() -> Iterable[str]:
    packages = {"torchrun": "torch", "deepspeed": "deepspeed", "accelerate": "accelerate"}
    return (name for name, package in packages.items() if importlib.util.find_spec(package))
