"""Cgroups of a bed's hosts, where Slurm is to confine its jobs: a folder per host in version 1's trees.

A host's slurmd sees its own folders as /run/cgroup, so that two beds, each with a node1, never share one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.testbed.network import Network

TREES = {"freezer": "release_agent", "devices": "devices.allow"}
"""Controllers that Slurm needs, to find a job's processes and to hide GPUs, each with a file that it has."""
MACHINE = Path("/sys/fs/cgroup")
INSIDE = Path("/run/cgroup")
CONF = f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={INSIDE}\nConstrainDevices=yes\n"


def missing() -> str | None:
    """Return why jobs can't be confined here, or None when they can."""
    if absent := [tree for tree, file in TREES.items() if not (MACHINE / tree / file).exists()]:
        return f"no cgroup version 1 tree for {', '.join(absent)} below {MACHINE}"
    return None


def mounts(network: Network, index: int) -> list[list[str]]:
    """Return the commands that give a host its folders, to be run in its mount namespace."""
    commands = []
    for tree in TREES:
        own = str(MACHINE / tree / network.namespace(index))
        commands.append(["mkdir", "-p", own, str(INSIDE / tree)])
        commands.append(["mount", "--bind", own, str(INSIDE / tree)])
    return commands


def remove(network: Network) -> None:
    """Remove the hosts' folders, in which no process is left; harmless where there are none."""
    for tree in TREES:
        for index in range(1, network.size + 1):
            top = MACHINE / tree / network.namespace(index)
            # Only a folder without folders can be removed; the files in it are the kernel's.
            for path in sorted([top, *top.rglob("*/")], reverse=True):
                if path.is_dir():
                    path.rmdir()
