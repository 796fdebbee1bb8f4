"""Memory of a rank over a phase of its work, on its GPU and on its host, in the words of the PEFT guide."""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch

if TYPE_CHECKING:
    from types import TracebackType

MIB = 2**20
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Span:
    """Memory over one phase, in bytes: when it began, when it ended, and the most in between."""

    begin: int
    end: int
    peak: int

    def lines(self, kind: str, phase: str) -> list[str]:
        """Return the four lines that the guide prints, in MiB; `kind` is GPU or CPU."""
        numbers = (
            (f"Memory before entering the {phase} ", self.begin),
            (f"Memory consumed at the end of the {phase} (end-begin)", self.end - self.begin),
            (f"Peak Memory consumed during the {phase} (max-begin)", self.peak - self.begin),
            (f"Total Peak Memory consumed during the {phase} (max)", self.peak),
        )
        return [f"{kind} {words}: {round(number / MIB)}" for words, number in numbers]


class Meter:
    """Measure one phase: `with Meter("train") as meter: ...`, then `meter.gpu` and `meter.cpu`.

    GPU memory is what PyTorch's allocator has given out (`torch.cuda.memory_allocated`): CUDA's context, some
    hundred MB, and what the allocator keeps in reserve come on top. CPU memory is the resident set, shared
    libraries included; its peak is the kernel's own (VmHWM), which a thread that looks now and then can miss.
    """

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.gpu: Span | None = None
        self.cpu: Span | None = None
        self._begin = (0, 0)

    def __enter__(self) -> Self:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        reset_peak()
        self._begin = (gpu_memory()[0], cpu_memory()[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gpu, cpu = gpu_memory(), cpu_memory()
        self.gpu = Span(self._begin[0], *gpu) if torch.cuda.is_available() else None
        self.cpu = Span(self._begin[1], *cpu)

    def lines(self) -> list[str]:
        """Return the report of this rank, a line a number."""
        spans = [("GPU", self.gpu), ("CPU", self.cpu)]
        return [line for kind, span in spans if span for line in span.lines(kind, self.phase)]


def gpu_memory() -> tuple[int, int]:
    """Return (now, peak since the last reset) of this rank's GPU, in bytes; zeros without one."""
    if not torch.cuda.is_available():
        return 0, 0
    return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()


def cpu_memory() -> tuple[int, int]:
    """Return (now, peak since the last reset) of this process, in bytes."""
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE))
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024


def reset_peak() -> None:
    """Have the kernel count this process's peak from now on."""
    try:
        CLEAR.write_text("5")  # proc(5): resets the peak of the resident set
    except OSError:  # a sandbox without it: the peak is then that of the whole process
        return
