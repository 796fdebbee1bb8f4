"""What hosts are asked in one visit, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class HostAnswer:
    """What came back from one host.

    Attributes:
        host: its name.
        exit: exit code of the command, or of what failed before it (255: ssh; 98: node.sh, whose words say
            what); minus a signal's number; None when it gave no answer in time.
        stdout: every line it printed.
        words: why it could not be reached or started, in the words of ssh, srun or node.sh; "" if it was.
        seconds: from the start to its end.
        pushed: the run directory had to be sent to it.
    """

    host: str
    exit: int | None
    stdout: list[str]
    words: str
    seconds: float
    pushed: bool = False


@dataclass(frozen=True)
class Visit:
    """What hosts are asked in one visit.

    Attributes:
        programs: argument lists to run there by alias; "python" as a first word is the one that runs the
            probes, and the programs start in the folder of `files`.
        files: to bring along, by name; on the hosts only the user can read them.
        probes: names of probes (see preflight.probes.catalogue).
        folders: for the probe of disks: what it is for -> absolute path.
        nvme: absolute folders for the probe of NVMe speed.
        sweep: the run directory of an earlier visit, of which whatever still runs there is ended.
        meet: whether hosts connect back, for clocks and the way to the master.
        seconds: limit of the whole visit.
        probe_seconds: limit of one probe.
    """

    programs: Mapping[str, list[list[str]]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    folders: Mapping[str, str] = field(default_factory=dict)
    nvme: tuple[str, ...] = ()
    sweep: str = ""
    meet: bool = False
    seconds: float = 60.0
    probe_seconds: float = 20.0
