"""NVIDIA's management library through ctypes, as much as is needed here: hosts need nothing installed.

Names, numbers and structures are those of nvml.h (CUDA 13; nothing here is newer than CUDA 11.6). A function
that the driver's library lacks, or that a GPU does not support, gives None.
"""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
TEMPERATURE_GPU = 0
CLOCK_SM = 1
UNCORRECTED = 1
VOLATILE = 0  # since the driver was loaded
EVENT_XID = 0x8
TIMEOUT = 10
GPU_IS_LOST = 15
THROTTLED = {
    0x4: "power",  # the power limit: the normal state of a GPU at work
    0x8: "hardware",
    0x20: "thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
"""nvmlClocksEventReasons that hold the clock down; the others are idleness or somebody's choice."""


class Utilization(ctypes.Structure):
    """nvmlUtilization_t: percent of the last sample period."""

    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Memory(ctypes.Structure):
    """nvmlMemory_t: bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Memory2(ctypes.Structure):
    """nvmlMemory_v2_t: bytes; what the driver keeps for itself is not in `used`."""

    _fields_ = (
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class PciInfo(ctypes.Structure):
    """nvmlPciInfo_t of nvmlDeviceGetPciInfo_v3."""

    _fields_ = (
        ("busIdLegacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pciDeviceId", ctypes.c_uint),
        ("pciSubSystemId", ctypes.c_uint),
        ("busId", ctypes.c_char * 32),
    )


class EventData(ctypes.Structure):
    """nvmlEventData_t."""

    _fields_ = (
        ("device", ctypes.c_void_p),
        ("eventType", ctypes.c_ulonglong),
        ("eventData", ctypes.c_ulonglong),
        ("gpuInstanceId", ctypes.c_uint),
        ("computeInstanceId", ctypes.c_uint),
    )


class Nvml:
    """The library, initialised.

    Attributes:
        error: NVML's number for why the last call gave None; 0 for none.

    Raises:
        OSError: there is no such library, or it cannot be initialised.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        self._lib = ctypes.CDLL(library)
        self.error = 0
        if self.call("nvmlInit_v2") is None:
            raise OSError(f"nvmlInit: {self.describe(self.error)}")

    def call(self, name: str, *arguments: Any) -> bool | None:
        """Call a function that returns an nvmlReturn_t; True, or None when it has failed."""
        function = getattr(self._lib, name, None)
        self.error = -1 if function is None else function(*arguments)
        return True if self.error == 0 else None

    def get(self, name: str, kind: Any, *arguments: Any) -> Any:
        """Call a function whose last argument is where the answer goes; return that, or None."""
        answer = kind()
        done = self.call(name, *arguments, ctypes.byref(answer))
        return None if done is None else getattr(answer, "value", answer)

    def number(self, name: str, *arguments: Any) -> int | None:
        """Return an unsigned int that a function gives."""
        found = self.get(name, ctypes.c_uint, *arguments)
        return None if found is None else int(found)

    def memory(self, handle: ctypes.c_void_p) -> Memory | Memory2 | None:
        """Return a GPU's memory as nvidia-smi shows it; drivers before 510 count what they keep as used."""
        found = Memory2(version=ctypes.sizeof(Memory2) | 2 << 24)
        if self.call("nvmlDeviceGetMemoryInfo_v2", handle, ctypes.byref(found)):
            return found
        old: Memory | None = self.get("nvmlDeviceGetMemoryInfo", Memory, handle)
        return old

    def handles(self) -> dict[int, ctypes.c_void_p]:
        """Return the GPUs that can be reached, by index."""
        found = {}
        for index in range(self.number("nvmlDeviceGetCount_v2") or 0):
            handle = self.get("nvmlDeviceGetHandleByIndex_v2", ctypes.c_void_p, ctypes.c_uint(index))
            if handle is not None:
                found[index] = ctypes.c_void_p(handle)
        return found

    def describe(self, error: int) -> str:
        """Return NVML's own words for a number of its."""
        function = getattr(self._lib, "nvmlErrorString", None)
        if function is None:
            return f"error {error}"
        function.restype = ctypes.c_char_p
        return (function(error) or b"").decode() or f"error {error}"
