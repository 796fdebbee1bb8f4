"""Every probe by its name. Each gets `control.json` and this host's entry in it, and returns its answer."""

from __future__ import annotations

from typing import Any, Callable, Dict

from . import disks, gpus, machine, software, sweeping

Probe = Callable[[Dict[str, Any], Dict[str, Any]], Dict[str, Any]]

PROBES: Dict[str, Probe] = {
    "job": software.job,
    "software": software.versions,
    "gpus": gpus.gpus,
    "machine": machine.machine,
    "network": machine.interfaces,
    "leftovers": machine.leftovers,
    "shared": disks.shared,
    "disks": disks.disks,
    "nvme": disks.nvme,
    "sweep": sweeping.sweep,
}
