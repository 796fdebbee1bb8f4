"""Joining the other ranks, comparing with them, and leaving them."""

from __future__ import annotations

import os
import sys
import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs


def leave(accelerator: Accelerator) -> None:
    """End a rank whose work is done, with exit code 0."""
    accelerator.end_training()
    # DeepSpeed holds on to its groups, so a thread of gloo may still be dropping the last tensor while Python
    # shuts down, and that aborts about one rank in twenty. So the rank ends without Python's shutdown.
    sys.stdout.flush()
    os._exit(0)


def join() -> Accelerator:
    """Return the Accelerator, with all the ranks that `accelerate launch` started."""
    _quiet()
    if torch.cuda.is_available() or "LOCAL_RANK" not in os.environ:
        return Accelerator()
    # Without a GPU, Accelerate 1.15 knows no backend for DeepSpeed and counts one rank: each would train on
    # all rows and gather nothing. With the backend named it asks torch.distributed.
    return Accelerator(kwargs_handlers=[InitProcessGroupKwargs(backend="gloo")])


def _quiet() -> None:
    """Have DeepSpeed start on CPUs without a compiler, and warn of nothing that is its own affair."""
    # It calls collectives by names that torch 2.13 has replaced: three warnings a step, for nothing.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if not torch.cuda.is_available():
        import deepspeed  # noqa: PLC0415 - as above

        # It would compile an all-reduce that helps on a single host only, and fail where g++ is missing.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def peaks(accelerator: Accelerator, phase: str, peak: int) -> None:
    """Print the peak of every rank's GPU in bytes, in the order of the ranks; nothing on CPUs."""
    if accelerator.device.type == "cuda":
        each = accelerator.gather(torch.tensor([peak], device=accelerator.device)).tolist()
        accelerator.print(f"GPU peak per rank in bytes, {phase}: {' '.join(map(str, each))}", flush=True)
