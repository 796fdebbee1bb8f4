"""Configuration of one bed's Slurm: everything below the bed's directory, nothing of the machine's own.

Written for Slurm 22.05, which Debian 12 ships.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from tests.testbed import cgroups
from tests.testbed.requirements import TestbedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.testbed.network import Network
    from tests.testbed.options import Options

CPUS = 8
"""Processors that each host claims to have, whatever the machine has."""
LOCAL_USE = 240
"""Major number that Linux leaves to experiments: no driver answers."""
PARTITIONS = """\
PartitionName=DEFAULT Nodes=ALL State=UP MaxTime=INFINITE DefaultTime=60
PartitionName=main Default=YES PriorityTier=10 PreemptMode=REQUEUE
PartitionName=cancelled PriorityTier=10 PreemptMode=CANCEL
PartitionName=graceful PriorityTier=5 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent PriorityTier=100 PreemptMode=OFF
"""
FIXED = """\
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
GresTypes=gpu
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=20
KillWait=20
BatchStartTimeout=120
MinJobAge=300
OverTimeLimit=0
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmctldDebug=info
SlurmdDebug=info
"""


def controller_port(network: Network) -> int:
    """Return where slurmctld listens: below the kernel's own ports (32768), another one for every bed."""
    return 21000 + network.number


def write_hosts(folder: Path, network: Network) -> None:
    """Write the /etc/hosts of the submit side: slurmctld listens on the address of its host's name."""
    names = {network.submit_address: "submit", "127.0.0.1": "localhost", "::1": "localhost"}
    names |= {network.inner_address(index): f"node{index}" for index in range(1, network.size + 1)}
    lines = [f"{address} {name}\n" for address, name in names.items()]
    (folder / "hosts").write_text("".join([*lines, f"127.0.0.1 {socket.gethostname()}\n"]))


def write_slurm_conf(folder: Path, network: Network, options: Options) -> Path:
    """Write slurm.conf and gres.conf into `folder/etc`; return slurm.conf."""
    etc = folder / "etc"
    etc.mkdir(parents=True, exist_ok=True)
    own = [
        f"ClusterName={network.name}",
        f"SlurmctldHost=submit({network.submit_address})",
        f"SlurmctldPort={controller_port(network)}",
        "CommunicationParameters=NoCtldInAddrAny",  # listen in the bed's network only
        # A requeued job waits until its credential is void (by default 120 s); a launch may not take longer.
        f"AuthInfo=socket={folder}/munge.socket,cred_expire=10",
        f"StateSaveLocation={folder}/state",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        # The host's own /run: steps make sockets here, whose paths have 107 letters at most.
        "SlurmdSpoolDir=/run/slurmd-%n",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
    ]
    processes, tasks = ("cgroup", "cgroup") if options.cgroups else ("linuxproc", "none")
    own += [f"ProctrackType=proctrack/{processes}", f"TaskPlugin=task/{tasks}"]
    own += _accounting_lines(folder, network, options)
    nodes = [_node_line(network, options, index) for index in range(1, options.nodes + 1)]
    conf = etc / "slurm.conf"
    conf.write_text("\n".join([*own, FIXED, *nodes, PARTITIONS]))
    if options.cgroups:
        (etc / "cgroup.conf").write_text(cgroups.CONF)
    _write_gres(etc, folder / "gpus", options)
    return conf


def _accounting_lines(folder: Path, network: Network, options: Options) -> list[str]:
    if not options.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        f"AccountingStoragePass={folder}/munge.socket",  # a path, although the name says something else
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={network.submit_address}",
        f"AccountingStoragePort={database_ports(network)[0]}",
        "AccountingStorageEnforce=associations,limits",
        "EnforcePartLimits=ALL",  # what can never start is refused, as many sites have it
        "AccountingStorageTRES=gres/gpu",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=5",
    ]


def database_ports(network: Network) -> tuple[int, int]:
    """Return the ports of slurmdbd and of its database."""
    return 22000 + network.number, 23000 + network.number


def _node_line(network: Network, options: Options, index: int) -> str:
    gres = f" Gres=gpu:fake:{slots}" if (slots := options.slots_of(index)) else ""
    address = network.inner_address(index)
    return f"NodeName=node{index} NodeAddr={address} CPUs={CPUS} RealMemory=8000{gres} State=UNKNOWN"


def _write_gres(etc: Path, gpus: Path, options: Options) -> None:
    """Name one device per fake GPU: slurmd wants character devices, and numbers them by their names' ends."""
    gpus.mkdir(exist_ok=True)
    for number in range(max(options.slots_of(index) for index in range(1, options.nodes + 1))):
        os.mknod(gpus / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(LOCAL_USE, number))
    lines = []
    for index in range(1, options.nodes + 1):
        slots = options.slots_of(index)
        files = f"{gpus}/gpu[0-{slots - 1}]" if slots > 1 else f"{gpus}/gpu0"
        lines += [f"NodeName=node{index} Name=gpu Type=fake File={files}\n"] if slots else []
    (etc / "gres.conf").write_text("".join(lines))


def check(options: Options) -> None:
    """Raise TestbedError for options that can't go together."""
    for name in ("accounting", "cgroups"):
        if getattr(options, name) and not options.slurm:
            raise TestbedError(f"{name}=True needs slurm=True")
    if options.cgroups and (why := cgroups.missing()):
        raise TestbedError(why)
    if options.slurm and options.jump:
        raise TestbedError("slurm=True with jump=True: the controller could not reach the hosts")
