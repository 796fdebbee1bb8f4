"""The testbed as the comparisons use it: our jobs and the peers' commands on the same hosts."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import bench
from tests.testbed import Process, Testbed, processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

GRACE = 5
RANK_ENVIRONMENT = {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
"""What every rank gets from every launcher: one thread each, and the interface that leads to the others."""


@dataclass
class Site:
    """A bed and a folder for one benchmark.

    Attributes:
        bed: the hosts.
        folder: for jobs, runs and logs; its name is unlike any other, which marks our processes.
        started: processes this benchmark has started on the submit side.
    """

    bed: Testbed
    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    turn: int = 0

    def fresh(self, name: str) -> Path:
        """Return a new empty folder."""
        self.turn += 1
        path = self.folder / f"{self.turn:03}-{name}"
        path.mkdir()
        return path

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of commands on the submit side; runs are not remembered in the home."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PDSH", "DSHPATH"))}
        return own | {"XDG_STATE_HOME": str(self.folder / "state")} | more

    def everywhere(self, tool: str, command: str) -> list[str]:
        """Return how pdsh or clush runs a command on all hosts at once."""
        names = ",".join(node.name for node in self.bed.nodes)
        options = ["-o", f"-F {self.bed.ssh_config}"] if tool == "clush" else []
        return [tool, "-S", *options, "-f", str(len(self.bed.nodes)), "-w", names, command]

    def start(self, argv: Sequence[str], log: Path, **environ: str) -> subprocess.Popen[bytes]:
        """Start a command on the submit side, its output in a file."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=log.parent,
                env=self.environ(**environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    # -- the same script by three ways

    def orchestrate(
        self, folder: Path, script: str, args: Sequence[str], backend: str = "pdsh", **job: Any
    ) -> subprocess.Popen[bytes]:
        """Submit a job in `folder` and follow it."""
        path = self.job(folder, script, args, backend, **job)
        return self.start(
            [bench.program("orchestrate"), "submit", str(path), "--follow"], folder / "submit.log"
        )

    def job(self, folder: Path, script: str, args: Sequence[str], backend: str = "pdsh", **job: Any) -> Path:
        """Write a job file on all hosts of the bed; return it."""
        ssh = {"config": str(self.bed.ssh_config)}
        cluster = {"backend": backend, "hostfile": str(self.bed.hostfile), "ssh": ssh}
        train = {"script": script, "args": [*args], "python": sys.executable, "env": RANK_ENVIRONMENT}
        document = {"name": "bench", "cluster": cluster, "train": train, "run_root": "runs", "grace": GRACE}
        path = folder / "job.yaml"
        path.write_text(json.dumps(document | job))  # JSON is YAML
        return path

    def deepspeed(self, folder: Path, script: str, args: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start DeepSpeed's own launcher over pdsh, with all it needs to do well on these hosts.

        It is told the master's address and spared its trial ssh, which would need the bed's hosts in the
        user's own ssh configuration.
        """
        (folder / "deepspeed_env").write_text("".join(f"{k}={v}\n" for k, v in RANK_ENVIRONMENT.items()))
        options = {
            "--hostfile": str(self.bed.hostfile),
            "--launcher": "pdsh",
            "--master_addr": self.bed.nodes[0].address,
            "--master_port": str(29500 + self.turn),
        }
        argv = [bench.program("deepspeed"), *(word for pair in options.items() for word in pair)]
        return self.start(
            [*argv, "--no_ssh_check", "--no_local_rank", script, *args],
            folder / "deepspeed.log",
            DS_ENV_FILE=str(folder / "deepspeed_env"),
            PDSH_SSH_ARGS_APPEND=self.bed.pdsh_env()["PDSH_SSH_ARGS_APPEND"],
            DS_ACCELERATOR="cpu",
        )

    def torchrun(self, folder: Path, script: str, args: Sequence[str]) -> list[subprocess.Popen[bytes]]:
        """Start a torchrun on each host over ssh, all at the same moment, as one would by hand."""
        return [self._torchrun(index, folder, [script, *args]) for index in range(len(self.bed.nodes))]

    def _torchrun(self, index: int, folder: Path, script: Sequence[str]) -> subprocess.Popen[bytes]:
        node, master = self.bed.nodes[index], self.bed.nodes[0]
        variables = [f"{key}={value}" for key, value in RANK_ENVIRONMENT.items()]
        launcher = [
            *("env", "-C", str(folder), *variables, sys.executable, "-m", "torch.distributed.run"),
            *(f"--nnodes={len(self.bed.nodes)}", f"--node-rank={index}"),
            f"--nproc-per-node={self.bed.options.slots_of(node.index)}",
            *(f"--master-addr={master.address}", f"--master-port={29500 + self.turn}"),
        ]
        ssh = ["ssh", "-F", str(self.bed.ssh_config), node.name]
        return self.start([*ssh, shlex.join([*launcher, *script])], folder / f"torchrun-{node.name}.log")

    # -- what is left

    def on_hosts(self) -> list[Process]:
        """Return every process on the hosts: sessions of sshd, agents, launchers, ranks, their children."""
        return [process for node in self.bed.nodes for process in node.processes()]

    def on_submit_side(self) -> list[Process]:
        """Return this benchmark's processes outside the hosts: supervisors, launchers, ssh."""
        hosts = {node.inode for node in self.bed.nodes}
        return [one for one in processes.find(str(self.folder)) if one.netns not in hosts]

    def clear(self) -> None:
        """End, by process id, whatever a run has left; supervisors and launchers first."""
        for find in (self.on_submit_side, self.on_hosts):
            processes.end(process.pid for process in find())
        for process in self.started:
            process.wait()
        self.started.clear()


@contextlib.contextmanager
def site(nodes: int, slots: int = 2) -> Iterator[Site]:
    """Bring hosts up for one benchmark; afterwards nothing of it is left.

    Raises:
        SystemExit: no testbed can be had here.
    """
    bench.need_testbed()
    with (
        tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as name,
        Testbed.up(nodes=nodes, slots=slots) as bed,
    ):
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that this cleans up too
        place = Site(bed, Path(name))
        try:
            yield place
        finally:
            place.clear()


def wait_for(done, seconds: float, every: float = 0.02) -> float | None:
    """Wait until `done()` and return the time it was so (epoch seconds); None when time ran out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        now = time.time()
        if done():
            return now
        time.sleep(every)
    return None


def events(folder: Path) -> list[Mapping[str, Any]]:
    """Return the events of the one run that was submitted in a folder."""
    (file,) = folder.glob("runs/*/events.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]
