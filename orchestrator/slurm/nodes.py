"""The nodes that a job leaves out, those that it could have, and those that Slurm has lost."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from orchestrator.hosts.ranges import RangeSyntaxError, expand_nodelist

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

_ASK_SECONDS = 30.0  # no answer counts as none: the job would forget what its user excludes
_EXCLUDED = re.compile(r"\bExcNodeList=(\S+)")
_ADDRESS = re.compile(r"\bNodeAddr=(\S+)")
_PORT = re.compile(r"\bPort=([0-9]+)")
_SLURMD_PORT = re.compile(r"^SlurmdPort\s*=\s*([0-9]+)", re.MULTILINE)
_TIMEOUT = re.compile(r"^SlurmdTimeout\s*=\s*([0-9]+)", re.MULTILINE)
_DEFAULT_PORT = 6818
_CONNECT_SECONDS = 3.0
_DOWN_MARGIN = 60.0  # seconds: slurmctld looks at its nodes at intervals
_PARTITION = re.compile(r"\bPartition=(\S+)")
_USABLE = "idle,mixed,allocated,completing,reserved,planned"


def excluded_nodes(job_id: str) -> list[str]:
    """Return the hosts that a job leaves out; none where Slurm does not tell."""
    match = _EXCLUDED.search(_said("scontrol", "--oneliner", "show", "job", job_id))
    try:
        return expand_nodelist(match[1]) if match and match[1] != "(null)" else []
    except RangeSyntaxError:
        return []


def other_nodes(job_id: str, left_out: Container[str]) -> list[str]:
    """Return the nodes of a job's partition that are up and not left out."""
    match = _PARTITION.search(_said("scontrol", "--oneliner", "show", "job", job_id))
    if match is None:
        return []
    words = ("--noheader", "--Node", "--format=%N", f"--partition={match[1]}", f"--states={_USABLE}")
    return [name for name in dict.fromkeys(_said("sinfo", *words).split()) if name not in left_out]


def see_down(names: Sequence[str]) -> None:
    """Wait until Slurm has declared hosts down that it cannot reach any more; not for those that it can.

    Slurm then queues the job again by itself, and could not start it before. Nor may it be asked before:
    22.05 starts a job that waits for this in the moment of the declaration, loses its GPUs on the way ("node
    offset invalid" in the log of slurmctld), and never starts it again.
    """
    waiting = [name for name in names if not _answers(name)]
    deadline = time.monotonic() + _slurmd_timeout() + _DOWN_MARGIN
    while waiting and time.monotonic() < deadline:
        time.sleep(1)
        waiting = [name for name in waiting if not _state(name).startswith(("down", "drain"))]


def _answers(name: str) -> bool:
    """Tell whether a host's slurmd takes connections from here."""
    node = _said("scontrol", "--oneliner", "show", "node", name)
    address = _ADDRESS.search(node)
    port = _PORT.search(node) or _SLURMD_PORT.search(_said("scontrol", "show", "config"))
    try:
        where = (address[1] if address else name, int(port[1]) if port else _DEFAULT_PORT)
        with socket.create_connection(where, timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _slurmd_timeout() -> float:
    match = _TIMEOUT.search(_said("scontrol", "show", "config"))
    return float(match[1]) if match else 300.0  # slurm.conf(5)


def _state(name: str) -> str:
    """Return a host's state as sinfo has it, without the sign of one that does not respond."""
    return (
        _said("sinfo", "--noheader", "--Node", f"--nodes={name}", "--format=%T")
        .split("\n")[0]
        .strip("*~#$@^-!")
    )


def _said(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_ASK_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
