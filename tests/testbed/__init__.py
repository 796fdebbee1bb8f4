"""Real hosts on one machine: network namespaces with their own address, host name, sshd and network cable.

Needs root on Linux, iproute2, util-linux and OpenSSH. `python -m tests.testbed up` keeps a bed for a person;
tests take the fixtures `bed` and `make_bed`. Nothing of the machine's own configuration is edited: what a
host sees differently (/etc/hosts, /etc/passwd, /run) is mounted in that host's own mount namespace.

With `slurm=True` the hosts are a Slurm cluster as well (`Testbed.slurm`, fixtures `slurm_bed` and
`accounting_bed`), with daemons, files and ports of its own.
"""

from tests.testbed.bed import Testbed
from tests.testbed.host import Node
from tests.testbed.options import Options
from tests.testbed.processes import Process
from tests.testbed.requirements import TestbedError, missing

__all__ = ["Node", "Options", "Process", "Testbed", "TestbedError", "missing"]
