"""What this host's GPUs are doing and what their driver reports, by NVML."""

from __future__ import annotations

import ctypes
from typing import Any, Iterable

from . import nvml


class Gpus:
    """This host's GPUs.

    Args:
        wanted: what CUDA_VISIBLE_DEVICES names them by: indexes, or (the begin of) UUIDs; empty: all.
        library: NVML's own.

    Raises:
        OSError: there is no NVML here.
    """

    def __init__(self, wanted: Iterable[str] = (), library: str = nvml.LIBRARY) -> None:
        self._nvml = nvml.Nvml(library)
        there, wanted = self._nvml.handles(), list(wanted)
        self._named = self._indexes(wanted, there)
        of_us = set(self._named.values()) if wanted else set(there)
        self._handles = {index: handle for index, handle in there.items() if index in of_us}
        self._buses = {self._bus(handle): index for index, handle in self._handles.items()}
        self._others = {self._bus(handle) for index, handle in there.items() if index not in of_us}
        self._lost: set[int] = set()
        self._events = self._listen()

    def _indexes(self, wanted: list[str], there: dict[int, ctypes.c_void_p]) -> dict[str, int]:
        """Return the index of each GPU that is asked for, by what it is asked for by."""
        if all(name.isdigit() for name in wanted):
            return {name: int(name) for name in wanted if int(name) in there}
        uuids = {index: self._uuid(handle) for index, handle in there.items()}
        return {name: index for name in wanted for index, uuid in uuids.items() if uuid.startswith(name)}

    def _uuid(self, handle: ctypes.c_void_p) -> str:
        uuid = ctypes.create_string_buffer(96)
        self._nvml.call("nvmlDeviceGetUUID", handle, uuid, ctypes.c_uint(len(uuid)))
        return uuid.value.decode()

    def _bus(self, handle: ctypes.c_void_p) -> str:
        info = self._nvml.get("nvmlDeviceGetPciInfo_v3", nvml.PciInfo, handle)
        return "" if info is None else bus_id(info.domain, info.bus, info.device)

    def by_bus(self, bus: str) -> int | None:
        """Return the index of the GPU at a bus address such as `0000:3b:00`."""
        return self._buses.get(bus)

    def named(self, name: str) -> int | None:
        """Return the index of the GPU that CUDA_VISIBLE_DEVICES calls so."""
        return self._named.get(name)

    def is_others(self, bus: str) -> bool:
        """Tell whether the GPU at a bus address is one of this machine that was not asked for."""
        return bus in self._others

    def _listen(self) -> ctypes.c_void_p | None:
        """Have the driver keep Xid events for us; None where it cannot (MIG, vGPU, an old driver)."""
        events = self._nvml.get("nvmlEventSetCreate", ctypes.c_void_p)
        if events is None:
            return None
        mask = ctypes.c_ulonglong(nvml.EVENT_XID)
        for handle in self._handles.values():
            self._nvml.call("nvmlDeviceRegisterEvents", handle, mask, ctypes.c_void_p(events))
        return ctypes.c_void_p(events)

    def read(self) -> dict[str, dict[str, Any]]:
        """Return what every GPU is doing, by index as text; what one does not tell is absent."""
        return {str(index): self._read(handle) for index, handle in self._handles.items()}

    def _read(self, handle: ctypes.c_void_p) -> dict[str, Any]:
        ask = self._nvml
        use = ask.get("nvmlDeviceGetUtilizationRates", nvml.Utilization, handle)
        memory = ask.memory(handle)
        power = ask.number("nvmlDeviceGetPowerUsage", handle)
        counters = (handle, nvml.UNCORRECTED, nvml.VOLATILE)
        found = {
            "utilization": None if use is None else use.gpu / 100,
            "memory": None if memory is None else memory.used,
            "memory_total": None if memory is None else memory.total,
            "temperature": ask.number("nvmlDeviceGetTemperature", handle, nvml.TEMPERATURE_GPU),
            "power": None if power is None else power / 1000,
            "clock": ask.number("nvmlDeviceGetClockInfo", handle, nvml.CLOCK_SM),
            "throttled": self._throttled(handle),
            "ecc_errors": ask.get("nvmlDeviceGetTotalEccErrors", ctypes.c_ulonglong, *counters),
        }
        return {key: value for key, value in found.items() if value is not None}

    def _throttled(self, handle: ctypes.c_void_p) -> str | None:
        name = "nvmlDeviceGetCurrentClocksThrottleReasons"  # its newer name is not in drivers before 535
        bits = self._nvml.get(name, ctypes.c_ulonglong, handle) or 0
        return ", ".join(words for bit, words in nvml.THROTTLED.items() if bits & bit) or None

    def faults(self) -> list[dict[str, Any]]:
        """Return the Xids since the last call, and the GPUs that have been lost since."""
        return [*self._xids(), *self._losses()]

    def _xids(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        event = nvml.EventData()
        wait = (self._events, ctypes.byref(event), ctypes.c_uint(0))
        while self._events is not None and self._nvml.call("nvmlEventSetWait_v2", *wait):
            if event.eventType == nvml.EVENT_XID:
                gpu = next((i for i, h in self._handles.items() if h.value == event.device), None)
                code = int(event.eventData)
                found.append({"what": "xid", "gpu": gpu, "code": code, "text": f"Xid {code}"})
        return found

    def _losses(self) -> list[dict[str, Any]]:
        found = []
        for index, handle in self._handles.items():
            if index in self._lost or self._nvml.number("nvmlDeviceGetTemperature", handle, 0) is not None:
                continue
            if self._nvml.error == nvml.GPU_IS_LOST:
                self._lost.add(index)
                text = self._nvml.describe(nvml.GPU_IS_LOST)
                found.append({"what": "lost", "gpu": index, "text": text})
        return found


def bus_id(domain: int, bus: int, device: int) -> str:
    """Return a GPU's place as the kernel's messages write it."""
    return f"{domain:04x}:{bus:02x}:{device:02x}"
