"""One host of a bed."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.testbed import cgroups, processes
from tests.testbed import network as net
from tests.testbed.accounts import User, account_mounts, as_user, open_closed_folders
from tests.testbed.requirements import SYSTEM_PATH, TestbedError, tool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.testbed.network import Network
    from tests.testbed.options import Options

CLEAN = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}


@dataclass(kw_only=True)
class Node:
    """A host: own network, name, mounts and sshd; shared kernel, process ids and (mostly) disk.

    Attributes:
        index: 1 for the first host.
        network: the bed's network.
        directory: the bed's directory.
        users: accounts that exist on the host.
        port: where sshd listens.
        anchor: pid of the process that keeps the host's namespaces alive; 0 before `boot`.
        sshd: pid of the listening sshd; 0 when there is none.
        children: processes this Python process started, to be reaped.
    """

    index: int
    network: Network
    directory: Path
    users: Mapping[str, User]
    port: int = 22
    anchor: int = 0
    sshd: int = 0
    children: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        """Return the host name, as `hostname` says it there."""
        return f"node{self.index}"

    @property
    def address(self) -> str:
        """Return the address by which other hosts know this one."""
        return self.network.inner_address(self.index)

    @property
    def address6(self) -> str:
        """Return its IPv6 address."""
        return self.network.inner_address6(self.index)

    @property
    def outer_address(self) -> str:
        """Return the address that ssh on the submit side is told."""
        return self.network.outer_address(self.index)

    @property
    def via(self) -> str | None:
        """Return the jump host's name, or None where the submit side reaches this host itself."""
        return "node1" if self.network.jump and self.index > 1 else None

    @property
    def folder(self) -> Path:
        """Return the folder of this host's own files, in the bed's directory."""
        return self.directory / self.name

    @property
    def host_key(self) -> Path:
        """Return sshd's private key; its public half lies beside it."""
        return self.folder / "host_key"

    @property
    def sshd_config(self) -> Path:
        """Return sshd's configuration."""
        return self.folder / "sshd_config"

    @property
    def sshd_log(self) -> str:
        """Return what sshd has logged so far; one `Accepted publickey` line per login."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "sshd.log").read_text(errors="replace")
        return ""

    # -- coming up

    def boot(self, hosts_file: str, options: Options) -> subprocess.Popen[str]:
        """Start the anchor; it prints `ready` when names, addresses and mounts are in place."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "hosts").write_text(hosts_file)
        commands = self._network_commands() + self._mount_commands(options)
        for path in options.private_dirs:
            commands.append(self._hide_command(path))
        script = "set -e\n" + "\n".join(shlex.join(command) for command in commands)
        script += "\necho ready\nexec sleep infinity >/dev/null 2>&1\n"
        enter = [tool("nsenter"), f"--net={net.NAMESPACES / self.network.namespace(self.index)}"]
        argv = [*enter, tool("unshare"), "--uts", "--mount", "sh", "-c", script]
        child = self._start(argv, subprocess.PIPE)
        self.anchor = child.pid
        return child

    def await_boot(self, child: subprocess.Popen[str]) -> None:
        """Wait for `ready`; TestbedError with the shell's words when it does not come."""
        assert child.stdout is not None
        said = child.stdout.read()
        child.stdout.close()
        if said.splitlines()[-1:] != ["ready"]:
            raise TestbedError(f"{self.name} did not come up: {said.strip()}")

    def _start(self, argv: list[str], stdout: int) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            env=CLEAN,
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal of a test run is not for the hosts
        )
        self.children.append(child)
        return child

    def _network_commands(self) -> list[list[str]]:
        cards = [("eth0", self.address, self.address6)]
        if self.via is None and self.network.jump:
            cards.append(("eth1", self.outer_address, f"fd77:{self.network.number:x}:0::1"))
        commands = [["hostname", self.name], ["ip", "link", "set", "lo", "up"]]
        for card, address, address6 in cards:
            commands.append(["ip", "address", "add", f"{address}/24", "dev", card])
            if net.has_ipv6():
                commands.append(["ip", "address", "add", f"{address6}/64", "dev", card, "nodad"])
            commands.append(["ip", "link", "set", card, "up"])
        return commands

    def _mount_commands(self, options: Options) -> list[list[str]]:
        # sshd wants /run/sshd, which exists only where the machine's own sshd has run: hosts get an own /run.
        commands = [["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], ["mkdir", "/run/sshd"]]
        commands.append(["mount", "--bind", str(self.folder / "hosts"), "/etc/hosts"])
        commands += account_mounts(self.directory)
        if options.slurm:
            commands.append(["mount", "--bind", str(self.directory / "slurm/etc"), "/etc/slurm"])
        if options.cgroups:
            commands += cgroups.mounts(self.network, self.index)
        return commands + (open_closed_folders(self.directory) if options.ordinary_user else [])

    def _hide_command(self, path: str | Path) -> list[str]:
        path = Path(path).resolve(strict=True)
        if self.directory.is_relative_to(path):
            raise TestbedError(f"{path} holds the bed's own files ({self.directory}): it can't be private")
        empty = self.folder / "private" / str(path).strip("/").replace("/", "%")
        empty.mkdir(parents=True, exist_ok=True)
        original = path.stat()
        os.chown(empty, original.st_uid, original.st_gid)
        empty.chmod(original.st_mode & 0o7777)
        return ["mount", "--bind", str(empty), str(path)]

    # -- sshd

    def launch_sshd(self) -> None:
        """Start sshd without waiting for it."""
        (self.folder / "sshd.log").unlink(missing_ok=True)
        argv = [tool("sshd"), "-D", "-f", str(self.sshd_config), "-E", str(self.folder / "sshd.log")]
        self.sshd = self._start([*self._enter(), *argv], subprocess.DEVNULL).pid

    def await_sshd(self, within: float = 300.0) -> None:
        """Wait until sshd listens."""
        deadline = time.monotonic() + within
        while "Server listening" not in self.sshd_log:
            if processes.read(self.sshd) is None or time.monotonic() > deadline:
                raise TestbedError(f"sshd of {self.name} does not listen: {self.sshd_log.strip()}")
            time.sleep(0.005)

    def start_sshd(self) -> None:
        """Start sshd again after `stop_sshd`."""
        self.launch_sshd()
        self.await_sshd()

    def stop_sshd(self, *, sessions: bool = False) -> None:
        """End the listening sshd, and with `sessions` also its open connections (not what they started)."""
        here = processes.in_namespaces([self.inode])
        processes.end(
            p.pid for p in here if p.pid == self.sshd or (sessions and p.argv[0].startswith("sshd"))
        )
        self.sshd = 0
        self.reap()

    def reap(self) -> None:
        """Take the exit status of what this Python process started here and what has ended since."""
        self.children = [child for child in self.children if child.poll() is None]

    # -- using it

    def _enter(self) -> list[str]:
        if processes.read(self.anchor) is None:
            raise TestbedError(f"{self.name} is not up")
        return [tool("nsenter"), "-t", str(self.anchor), "--net", "--uts", "--mount", "--"]

    def command(self, argv: Sequence[str], *, user: str = "root", cwd: str | Path = "/") -> list[str]:
        """Return the command line that runs `argv` on this host without ssh."""
        return [*self._enter(), *as_user(self.users[user]), "env", "-C", str(cwd), *argv]

    def run(
        self, argv: Sequence[str], *, user: str = "root", env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host without ssh; options as `subprocess.run`, `cwd` is the host's."""
        line = self.command(argv, user=user, cwd=options.pop("cwd", "/"))
        variables = CLEAN | self.users[user].variables | dict(env or {})
        options = {"text": True, "capture_output": True} | options
        return subprocess.run(line, env=variables, check=options.pop("check", False), **options)

    def hide(self, path: str | Path) -> None:
        """Cover a folder by an empty one, on this host only: it is not shared any more."""
        done = self.run(self._hide_command(path))
        if done.returncode:
            raise TestbedError(f"{self.name}: {done.stderr.strip()}")

    @property
    def inode(self) -> int:
        """Return the inode of its network namespace."""
        return net.inode(self.network.namespace(self.index))

    def processes(self, marker: str = "") -> list[processes.Process]:
        """Return what runs on this host (without anchor, listening sshd, slurmd) and carries the marker."""
        here = processes.in_namespaces([self.inode])
        ours = (self.anchor, self.sshd)
        found = [p for p in here if p.pid not in ours and not processes.serves_slurm(p)]
        return [p for p in found if processes.mentions(p, marker)]

    def pull_cable(self) -> None:
        """Cut this host off from everything."""
        net.set_cable(self.network, self.index, plugged=False)

    def plug_cable(self) -> None:
        """Connect it again."""
        net.set_cable(self.network, self.index, plugged=True)

    def slow(self, rate: str) -> None:
        """Limit its link, both ways, to a rate such as `100mbit`."""
        net.set_rate(self.network, self.index, rate)

    def unslow(self) -> None:
        """Lift the limit."""
        net.set_rate(self.network, self.index, None)

    def crash(self) -> None:
        """Let the host die as when its power fails: cable out, every process (but the anchor) killed."""
        self.pull_cable()
        inode = self.inode
        processes.end_all(lambda: (p for p in processes.in_namespaces([inode]) if p.pid != self.anchor))
        self.sshd = 0
        self.reap()
