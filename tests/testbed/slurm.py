"""A real Slurm cluster on the hosts of a bed: munged and slurmctld on the submit side, a slurmd per host."""

from __future__ import annotations

import secrets
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.testbed import processes, slurmfiles
from tests.testbed.accounting import Accounting
from tests.testbed.accounts import as_user, submit_side
from tests.testbed.host import CLEAN
from tests.testbed.requirements import TestbedError, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.testbed.accounts import User
    from tests.testbed.host import Node
    from tests.testbed.network import Network
    from tests.testbed.options import Options
    from tests.testbed.services import Services

STATES = ["squeue", "--noheader", "--states=all", "--format=%A %T"]
SQUEUE_TRIES = 3
OVER = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"}
OVER |= {"OUT_OF_MEMORY", "REVOKED"}
PATIENCE = 300.0
"""Seconds that a cluster has for what takes one on an idle machine."""
LONGEST_SOCKET = 107
"""Letters in the path of a Unix socket, a limit of Linux."""
TAKES_JOBS = {"idle", "mixed", "allocated", "completing"}


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """The cluster of one bed. Methods without a host's name act on the submit side.

    Attributes:
        directory: the bed's directory.
        network: the bed's network.
        options: the bed's options.
        nodes: its hosts.
        users: its users.
        services: the daemons of the submit side and the slurmds.
    """

    directory: Path
    network: Network
    options: Options
    nodes: Sequence[Node]
    users: Mapping[str, User]
    services: Services

    @property
    def folder(self) -> Path:
        """Return where the cluster keeps its files: logs, state, `etc`."""
        return self.directory / "slurm"

    @property
    def conf(self) -> Path:
        """Return slurm.conf; hosts see its folder as /etc/slurm."""
        return self.folder / "etc/slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """Return the variables with which Slurm's clients on the submit side find this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    # -- coming up

    def configure(self) -> None:
        """Write all files; hosts need the folder when they boot."""
        if len(str(self.folder / "database.socket")) > LONGEST_SOCKET:
            raise TestbedError(
                f"{self.folder} is too long a path for the sockets in it; choose a shorter base"
            )
        (self.folder / "state").mkdir(parents=True)
        slurmfiles.write_hosts(self.folder, self.network)
        slurmfiles.write_slurm_conf(self.folder, self.network, self.options)
        if self.options.accounting:
            self._accounting.configure()

    def start(self) -> None:
        """Start everything and wait until every host is idle."""
        self._start_munged()
        if self.options.accounting:
            self._accounting.start()
        self.start_controller()
        for node in self.nodes:
            self._launch_slurmd(node)
        self._await(self._started, "hosts are not idle", PATIENCE + len(self.nodes))

    def _started(self) -> bool:
        if dead := [node.name for node in self.nodes if not self.services.pid(slurmd_of(node))]:
            raise TestbedError(f"slurmd ended on {', '.join(dead)}\n{self.story()}")
        return self._idle()

    @property
    def _accounting(self) -> Accounting:
        return Accounting(slurm=self)

    def _start_munged(self) -> None:
        key, socket = self.folder / "munge.key", self.folder / "munge.socket"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(1024))
        # --force: the bed may lie below a folder that ordinary users reach in its mount namespaces only.
        files = {"key-file": key, "socket": socket}
        files |= {f"{kind}-file": self.folder / f"munged.{kind}" for kind in ("pid", "log", "seed")}
        words = [f"--{option}={path}" for option, path in files.items()]
        self.services.start("munged", [tool("munged"), "--foreground", "--force", "--num-threads=10", *words])
        self.services.await_that("munged", socket.exists)

    def start_controller(self) -> None:
        """Start slurmctld and wait until it answers."""
        line = [*self.submit_side(["hostname", "submit"]), tool("slurmctld"), "-D", "-f", str(self.conf)]
        self.services.start("slurmctld", line)
        self.services.await_that("slurmctld", lambda: "UP" in self.run("scontrol", "ping").stdout)

    def stop_controller(self) -> None:
        """End slurmctld; jobs run on, clients wait for it and then give up."""
        self.services.stop("slurmctld", within=30)

    def start_slurmd(self, node: Node) -> None:
        """Start a host's slurmd and wait until the controller has heard of it."""
        self._launch_slurmd(node)
        self._await(lambda: self._answers(node.name), f"{node.name} does not answer slurmctld")

    def _answers(self, name: str) -> bool:
        return not self.node_states().get(name, "unknown").endswith(("*", "unknown"))

    def _launch_slurmd(self, node: Node) -> None:
        argv = [tool("slurmd"), "-D", "-N", node.name, "-f", str(self.conf)]
        self.services.start(slurmd_of(node), node.command(argv))

    def stop_slurmd(self, node: Node) -> None:
        """Kill a host's slurmd (jobs' steps run on); the controller notices after SlurmdTimeout, 20 s."""
        if pid := self.services.pid(slurmd_of(node)):
            processes.end([pid])
        self.services.forget(slurmd_of(node))

    def revive(self, node: Node, within: float = PATIENCE) -> None:
        """Bring a host back after `Node.crash`: cable, sshd, slurmd, and a state in which it takes jobs."""
        node.plug_cable()
        if not node.sshd:
            node.start_sshd()
        if not self.services.pid(slurmd_of(node)):
            self._launch_slurmd(node)
        self._await(lambda: self._takes_jobs(node.name), f"{node.name} does not come back", within)

    def _takes_jobs(self, name: str) -> bool:
        self._resume_hosts()  # again and again: the controller may hear only now that the host was dead
        return self.node_states().get(name) in TAKES_JOBS

    # -- using it

    def submit_side(self, *more: Sequence[str]) -> list[str]:
        """Return the prefix of commands on the submit side, which has this cluster's /etc/slurm."""
        binds = {"/etc/slurm": self.conf.parent, "/etc/hosts": self.folder / "hosts"}
        mounts = [["mount", "--bind", str(source), place] for place, source in binds.items()]
        return submit_side(self.directory, [*mounts, *more])

    def command(self, *argv: str, user: str = "root") -> list[str]:
        """Return the command line that runs one of Slurm's clients on the submit side."""
        return [*self.submit_side(), *as_user(self.users[user]), *argv]

    def run(
        self, *argv: str, user: str = "root", env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's clients on the submit side; options as `subprocess.run`."""
        variables = CLEAN | self.users[user].variables | self.env | dict(env or {})
        line = self.command(*argv, user=user)
        options = {"text": True, "capture_output": True, "cwd": "/", **options}
        return subprocess.run(line, env=variables, check=options.pop("check", False), **options)

    def node_states(self) -> dict[str, str]:
        """Return each host's state in sinfo's long words, such as `idle` or `down*`; `*`: no answer."""
        listing = self.run("sinfo", "-N", "-h", "-p", "main", "-o", "%N %T").stdout
        return dict(line.split() for line in listing.splitlines())

    def jobs(self) -> dict[str, str]:
        """Return the state of every job that Slurm still remembers (MinJobAge is 300 s), by job id."""
        for _ in range(SQUEUE_TRIES):  # it gives up after MessageTimeout, 10 s, which a busy machine may need
            done = self.run(*STATES)
            if not done.returncode:
                return dict(line.split() for line in done.stdout.splitlines())
        raise TestbedError(f"squeue: {done.stderr.strip()}")

    def wait_idle(self, within: float = PATIENCE) -> None:
        """Wait until every host is idle, so that a job may start at once."""
        self._await(self._idle, "hosts are not idle", within)

    def _idle(self) -> bool:
        states = self.node_states()
        return len(states) == len(self.nodes) and set(states.values()) == {"idle"}

    def _resumed_and_idle(self) -> bool:
        self._resume_hosts()  # again and again, as in `_takes_jobs`
        return self._idle()

    def cancel_all(self, within: float = PATIENCE) -> None:
        """End every job, bring back what is dead, down or drained, and wait until all hosts are idle."""
        if not self.services.pid("slurmctld"):
            self.start_controller()
        for node in self.nodes:
            if not self.services.pid(slurmd_of(node)):
                self.revive(node)
        for _ in range(SQUEUE_TRIES):  # as in `jobs`
            alive = [job for job, state in self.jobs().items() if state not in OVER]
            if not alive or self.run("scancel", *alive).returncode == 0:
                break
        if alive:
            self._kill_tasks()
        self._await(self._resumed_and_idle, "hosts are not idle", within)

    def _kill_tasks(self) -> None:
        """Kill what jobs run: Slurm 22.05 takes `scancel --signal=KILL` for a TERM and waits KillWait."""
        found = [p for node in self.nodes for p in node.processes() if "slurmstepd" in p.argv[0]]
        processes.end(pid for step in found for pid in processes.descendants(step.pid))

    def story(self, lines: int = 15) -> str:
        """Return the last lines of every daemon's log, to be shown where a test fails."""
        logs = {
            path.name: path.read_text(errors="replace").splitlines() for path in self.folder.glob("*.log")
        }
        return "\n".join(f"--- {name}\n" + "\n".join(logs[name][-lines:]) for name in sorted(logs))

    def _resume_hosts(self) -> None:
        bad = [name for name, state in self.node_states().items() if state.startswith(("down", "drain"))]
        if bad:
            self.run("scontrol", "update", f"nodename={','.join(bad)}", "state=resume")

    def _await(self, ready: Callable[[], bool], otherwise: str, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while not ready():
            if time.monotonic() > deadline:
                raise TestbedError(f"{otherwise} after {within:.0f} s: {self.node_states()} {self.jobs()}")
            time.sleep(0.05)


def slurmd_of(node: Node) -> str:
    """Return the name of a host's slurmd among the services."""
    return f"slurmd-{node.name}"
