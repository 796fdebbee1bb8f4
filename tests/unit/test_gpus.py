"""NVML through ctypes: against NVIDIA's own binding, and a library made here that answers like it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.agent import nvml
from orchestrator.agent.gpus import Gpus
from orchestrator.agent.measuring import GpuWatch
from tests.samples import ROOT

pynvml = pytest.importorskip("pynvml")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nvml.TEMPERATURE_GPU, "NVML_TEMPERATURE_GPU"),
        (nvml.CLOCK_SM, "NVML_CLOCK_SM"),
        (nvml.UNCORRECTED, "NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
        (nvml.VOLATILE, "NVML_VOLATILE_ECC"),
        (nvml.EVENT_XID, "nvmlEventTypeXidCriticalError"),
        (nvml.TIMEOUT, "NVML_ERROR_TIMEOUT"),
        (nvml.GPU_IS_LOST, "NVML_ERROR_GPU_IS_LOST"),
    ],
)
def test_numbers_are_nvidias(ours, theirs):
    assert ours == getattr(pynvml, theirs)


def test_reasons_that_hold_a_clock_down_are_nvidias():
    names = ["SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown"]
    assert list(nvml.THROTTLED) == [getattr(pynvml, f"nvmlClocksEventReason{name}") for name in names]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nvml.Utilization, "c_nvmlUtilization_t"),
        (nvml.Memory, "c_nvmlMemory_t"),
        (nvml.Memory2, "c_nvmlMemory_v2_t"),
        (nvml.PciInfo, "nvmlPciInfo_t"),
        (nvml.EventData, "c_nvmlEventData_t"),
    ],
)
def test_structures_are_nvidias(ours, theirs):
    other = getattr(pynvml, theirs)
    assert ctypes.sizeof(ours) == ctypes.sizeof(other)
    assert [(name, getattr(ours, name).offset) for name, _ in ours._fields_] == [
        (name, getattr(other, name).offset) for name, _ in other._fields_
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, ROOT / "tests/data/nvml/stub.c"], check=True)
    return path


@pytest.fixture
def library(built, tmp_path, monkeypatch):
    """Return a library of two GPUs that have told nothing yet, and how to lose the second."""
    own = tmp_path / "libnvidia-ml.so.1"
    shutil.copy(built, own)  # a library of another path is loaded anew
    monkeypatch.setenv("STUB_LOST", str(tmp_path / "lost"))
    return str(own)


FIRST = {
    "utilization": 0.97, "memory": 60 << 30, "memory_total": 80 << 30, "temperature": 64, "power": 452.5,
    "clock": 1980, "ecc_errors": 10,
}  # fmt: skip


def test_every_gpu_tells_what_it_can(library):
    readings = Gpus((), library).read()
    second = {key: value for key, value in FIRST.items() if key != "ecc_errors"}
    assert readings == {
        "0": FIRST,
        "1": second | {"memory": 61 << 30, "temperature": 65, "throttled": "thermal, hardware thermal"},
    }


@pytest.mark.parametrize(
    ("wanted", "found"), [(["1"], ["1"]), (["GPU-bbbb"], ["1"]), (["0", "1"], ["0", "1"]), (["MIG-1"], [])]
)
def test_only_the_hosts_own_are_asked(library, wanted, found):
    gpus = Gpus(wanted, library)
    assert list(gpus.read()) == found
    assert [str(gpus.named(name)) for name in wanted if found] == found
    assert gpus.is_others("0000:3b:00") == ("0" not in found)


def test_an_xid_and_a_lost_gpu_are_told_once(library, tmp_path):
    gpus = Gpus((), library)
    assert gpus.faults() == [{"what": "xid", "gpu": 1, "code": 79, "text": "Xid 79"}]
    assert gpus.faults() == []
    (tmp_path / "lost").touch()
    assert gpus.faults() == [{"what": "lost", "gpu": 1, "text": "GPU is lost"}]
    assert gpus.faults() == []
    assert gpus.read() == {"0": FIRST, "1": {}}
    assert [gpus.by_bus("0000:3b:00"), gpus.by_bus("0000:3c:00"), gpus.by_bus("0000:01:00")] == [0, 1, None]


def test_without_a_driver_there_is_nothing_to_ask(library, monkeypatch):
    monkeypatch.delenv("STUB_LOST")
    with pytest.raises(OSError, match="Driver Not Loaded"):
        Gpus((), library)
    with pytest.raises(OSError, match="no-such-library"):
        Gpus((), "no-such-library.so")


def test_a_driver_that_does_not_answer_is_told_of_once(monkeypatch):
    watch = GpuWatch([], 10.0)
    watch._asked = 0.0  # as long ago as this machine runs
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    (fault,) = watch.faults()
    assert (fault["what"], watch.faults(), watch.readings()) == ("driver", [], {})


def test_an_xid_of_the_last_moment_is_told(library, monkeypatch):
    monkeypatch.setattr("orchestrator.agent.measuring._LAST_SECONDS", 120.0)
    watch = GpuWatch(["0", "1"], 0.5, library)
    watch.ask_now()  # nothing has been begun
    watch.start()
    deadline = time.monotonic() + 120
    while not watch.readings():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert watch.readings()["0"] == FIRST
    assert [fault["code"] for fault in watch.faults()] == [79]
    Path(os.environ["STUB_LOST"]).touch()
    watch.ask_now()
    assert [fault["what"] for fault in watch.faults()] == ["lost"]
