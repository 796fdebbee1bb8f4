"""GPUs as the driver shows them: how many, which, what is wrong with them, and who is on them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from typing import Any

from orchestrator.agent import checks

_SECONDS = 15  # nvidia-smi takes seconds where no persistence daemon keeps the driver loaded
_GPU_FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "memory.used",
    "driver_version",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
    "utilization.gpu",
)
_ROW_FIELDS = ("gpu_uuid", "remapped_rows.pending", "remapped_rows.failure")  # from A100 on
_APP_FIELDS = ("gpu_uuid", "pid", "used_memory", "process_name")


def gpus(config: dict[str, Any], host: dict[str, Any]) -> dict[str, Any]:
    """Return the number of GPUs in the kernel, nvidia-smi's table, and CUDA's version of the driver."""
    del config, host
    answer: dict[str, Any] = {"count": checks.count_gpus(), "cuda": driver_cuda(), "gpus": []}
    answer["visible"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi") is None:
        answer["failure"] = "there is no nvidia-smi" if answer["count"] else ""
        return answer
    try:
        answer["gpus"] = _ask("gpu", _GPU_FIELDS)
        answer["processes"] = _ask("compute-apps", _APP_FIELDS)
    except (OSError, ValueError) as error:
        answer["failure"] = str(error)
        return answer
    with contextlib.suppress(OSError, ValueError):  # older versions of nvidia-smi do not know the question
        answer["remapped"] = _ask("remapped-rows", _ROW_FIELDS)
    return answer


def _ask(what: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """Return nvidia-smi's rows, each by field.

    Raises:
        ValueError: nvidia-smi failed; its words.
        OSError: it could not be started.
    """
    import subprocess  # noqa: PLC0415 - hosts without GPUs need it not

    argv = ["nvidia-smi", "--query-{}={}".format(what, ",".join(fields)), "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"nvidia-smi gave no answer in {_SECONDS} s") from None
    text = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        raise ValueError(f"nvidia-smi ended with {done.returncode}: {text[-300:]}")
    return parse_table(text, fields)


def parse_table(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of nvidia-smi's CSV, each by field; a last field may hold commas.

    nvidia-smi 580.159: `0, GPU-aabb59c4-…, NVIDIA H200, 143771, 0, 580.159.04, 0, [N/A], 0`; what a GPU does
    not have is `[N/A]`.
    """
    rows = (line.split(", ", len(fields) - 1) for line in text.splitlines() if line.strip())
    return [dict(zip(fields, row)) for row in rows if len(row) == len(fields)]


def driver_cuda() -> str | None:
    """Return the newest CUDA that the driver can serve, such as 12.8 (cuDriverGetVersion); None for none."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
