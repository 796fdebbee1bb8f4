"""A bed: some hosts, the network between them, and the submit side's files to reach them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.testbed import cgroups, processes, slurmfiles, sshfiles
from tests.testbed import network as net
from tests.testbed import state as states
from tests.testbed.accounts import ORDINARY, REPOSITORY, User, as_user, make_users, submit_side
from tests.testbed.host import CLEAN, Node
from tests.testbed.options import Options, default_base
from tests.testbed.requirements import TestbedError, missing, missing_slurm, tool
from tests.testbed.services import Services
from tests.testbed.slurm import Slurm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Testbed:
    """Hosts that are up. Use as a context manager, or call `close`."""

    __test__ = False  # the name makes pytest look for tests in it

    def __init__(self, options: Options, network: net.Network, directory: Path) -> None:
        self.options = options
        self.network = network
        self.directory = directory
        self.users: dict[str, User] = {}
        self.nodes: list[Node] = []
        self.client: sshfiles.Client
        self.user_client: sshfiles.Client | None = None
        self._services = Services(folder=directory / "services")
        self._slurm: Slurm | None = None
        self._closed = False

    @classmethod
    def up(cls, *, base: Path | None = None, keep: bool = False, **options: Any) -> Self:
        """Bring hosts up; options as the fields of `Options`.

        Args:
            base: folder of all beds' state; default `default_base()`.
            keep: the bed outlives this process (else the next bed, or `down`, clears it away when this
                process has died without closing it).
            options: see `Options`.

        Raises:
            TestbedError: not possible here, or a host did not come up; nothing is left behind.
        """
        chosen = Options(**options)
        slurmfiles.check(chosen)
        if why := missing() or (chosen.slurm and missing_slurm(accounting=chosen.accounting)):
            raise TestbedError(why)
        base = (base or default_base()).resolve()
        base.mkdir(parents=True, exist_ok=True)
        sweep(base)
        network = net.claim(chosen.nodes, jump=chosen.jump)
        bed = cls(chosen, network, base / network.name)
        try:
            bed._build(keep=keep)
        except BaseException:
            bed.close()
            raise
        return bed

    def _build(self, *, keep: bool) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        owner = None if keep else [os.getpid(), processes.start_time(os.getpid())]
        self._save(owner)
        net.build(self.network)
        options = self.options
        self.users = make_users(self.directory, ordinary=options.ordinary_user, chatty=options.chatty)
        self._make_nodes()
        if self._slurm:
            self._slurm.configure()
        self._boot_nodes()
        self._write_files()
        for node in self.nodes:
            node.launch_sshd()
        for node in self.nodes:
            node.await_sshd()
        self._save(owner)
        if self._slurm:
            self._slurm.start()

    def _make_nodes(self) -> None:
        ports = self.options.ports
        for index in range(1, self.options.nodes + 1):
            node = Node(index=index, network=self.network, directory=self.directory, users=self.users)
            node.port = ports.get(index, 22)
            self.nodes.append(node)
        if self.options.slurm:
            self._slurm = Slurm(
                directory=self.directory,
                network=self.network,
                options=self.options,
                nodes=self.nodes,
                users=self.users,
                services=self._services,
            )

    def _boot_nodes(self) -> None:
        started = [(node, node.boot(self._hosts_file(node), self.options)) for node in self.nodes]
        for node, child in started:
            node.await_boot(child)

    def _hosts_file(self, own: Node) -> str:
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{self.submit_address} submit"]
        for node in self.nodes:
            mine = node is own and self.options.debian_hosts
            lines.append(f"{'127.0.1.1' if mine else node.address} {node.name}")
        return "\n".join(lines) + "\n"

    def _write_files(self) -> None:
        key, authorized = self.directory / "client_key", self.directory / "authorized_keys"
        sshfiles.make_keys([key, *(node.host_key for node in self.nodes)])
        authorized.write_text(sshfiles.public(key) + "\n")
        banner = self.directory / "banner" if self.options.banner else None
        if banner:
            banner.write_text(sshfiles.BANNER)
        for node in self.nodes:
            sshfiles.write_sshd_config(node, authorized, banner)
        for user in self.users.values():
            sshfiles.write_client(self._client_folder(user.name), key, self.nodes, user)
        self._find_clients()
        self.write_hostfile(self.hostfile)

    def _client_folder(self, name: str) -> Path:
        return self.directory / "client" / name

    def _find_clients(self) -> None:
        self.client = self._client("root")
        self.user_client = self._client(ORDINARY) if ORDINARY in self.users else None

    def _client(self, name: str) -> sshfiles.Client:
        folder = self._client_folder(name)
        return sshfiles.Client(folder / "id_ed25519", folder / "known_hosts", folder / "ssh_config")

    # -- what a job needs to know

    @property
    def ssh_config(self) -> Path:
        """Return the ssh configuration for root: `cluster.ssh.config` of a job file, `ssh -F`."""
        return self.client.config

    @property
    def hostfile(self) -> Path:
        """Return the hostfile of all hosts."""
        return self.directory / "hostfile"

    @property
    def slurm(self) -> Slurm:
        """Return the cluster of a bed with `slurm=True`; TestbedError without."""
        if self._slurm is None:
            raise TestbedError("this bed has no Slurm: bring it up with slurm=True")
        return self._slurm

    @property
    def submit_address(self) -> str:
        """Return the submit side's address in the bed's network."""
        return self.network.submit_address

    def node(self, name: str) -> Node:
        """Return a host by name; TestbedError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise TestbedError(f"no host {name!r} in this bed; it has node1 to node{len(self.nodes)}")

    def write_hostfile(self, path: Path, slots: Sequence[int] | None = None) -> Path:
        """Write a hostfile of all hosts (`slots`: one number per host, else the bed's own) and return it."""
        counts = slots or [self.options.slots_of(node.index) for node in self.nodes]
        lines = [f"{node.name} slots={count}\n" for node, count in zip(self.nodes, counts, strict=True)]
        path.write_text("".join(lines))
        return path

    def cluster_section(self, backend: str = "pdsh") -> str:
        """Return the `cluster:` section of a job file that runs on this bed."""
        if backend == "slurm":
            size = f"  nodes: {len(self.nodes)}\n  slots: {self.options.slots_of(1)}\n"
            return f"cluster:\n  backend: slurm\n{size}"
        ssh = f"  ssh:\n    config: {json.dumps(str(self.ssh_config))}\n"
        hostfile = f"  hostfile: {json.dumps(str(self.hostfile))}\n"
        return f"cluster:\n  backend: {backend}\n{hostfile}  control_address: {self.submit_address}\n{ssh}"

    def pdsh_env(self, client: sshfiles.Client | None = None) -> dict[str, str]:
        """Return the variables with which pdsh reaches the hosts by ssh."""
        return {"PDSH_RCMD_TYPE": "ssh", "PDSH_SSH_ARGS_APPEND": f"-F {(client or self.client).config}"}

    # -- the submit side

    def ssh(self, name: str, *command: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a command on a host over ssh, as root."""
        argv = [tool("ssh"), "-F", str(self.ssh_config), name, *command]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(argv, timeout=timeout, check=False, **options)

    def submit_command(self, argv: Sequence[str], *, user: str = ORDINARY) -> list[str]:
        """Return the command line that runs `argv` on the submit side as a user that only the bed knows.

        This python and this project can be read by that user even where they lie in root's home.
        """
        prefix = self._slurm.submit_side() if self._slurm else submit_side(self.directory)
        return [*prefix, *as_user(self.users[user]), *argv]

    def submit_env(self, user: str = ORDINARY) -> dict[str, str]:
        """Return a login environment of that user, in which `orchestrator` can be imported."""
        slurm = self._slurm.env if self._slurm else {}
        return CLEAN | self.users[user].variables | {"PYTHONPATH": str(REPOSITORY)} | slurm

    def pull_cable(self) -> None:
        """Cut the submit side off; the hosts still reach each other."""
        net.set_cable(self.network, 0, plugged=False)

    def plug_cable(self) -> None:
        """Connect the submit side again."""
        net.set_cable(self.network, 0, plugged=True)

    def stray_processes(self, marker: str) -> list[processes.Process]:
        """Return all processes of the machine, hosts included, that carry the marker (argv or environ)."""
        return processes.find(marker)

    # -- state and end

    def _save(self, owner: list[int | None] | None) -> None:
        state = {
            "number": self.network.number,
            "switch": net.inode(self.network.name),
            "owner": owner,
            "options": asdict(self.options),
            "users": {u.name: [u.uid, str(u.home)] for u in self.users.values()},
            "anchors": [node.anchor for node in self.nodes],
            "sshds": [node.sshd for node in self.nodes],
        }
        states.save(self.directory, state)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Take hold of a bed that another process brought up."""
        state = states.load(directory)
        options = Options.from_json(state["options"])
        bed = cls(options, net.Network(state["number"], options.nodes, options.jump), directory)
        bed.users = {name: User(name, uid, Path(home)) for name, (uid, home) in state["users"].items()}
        bed._make_nodes()
        for node, anchor, sshd in zip(bed.nodes, state["anchors"], state["sshds"], strict=False):
            node.anchor, node.sshd = anchor, sshd
        bed._find_clients()
        return bed

    def close(self) -> None:
        """End every process on the hosts and remove all traces; harmless when done already."""
        if self._closed:
            return  # the name may be another bed's by now
        self._closed = True
        self._services.kill()
        inodes = [net.inode(name) for name in net.namespaces(self.network)]
        processes.end_all(lambda: processes.in_namespaces(inodes))
        for node in self.nodes:
            node.reap()
        if self.options.cgroups:
            cgroups.remove(self.network)
        shutil.rmtree(self.directory, ignore_errors=True)
        net.remove(self.network)  # last: it is the lock on all of the above

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clear(directory: Path, state: Mapping[str, Any]) -> None:
    """Take a recorded bed down. Namespaces that are not those it made (after a reboot) are left alone."""
    name = f"ob{state['number']}"
    try:
        same = net.inode(name) == state["switch"]
    except OSError:
        same = False
    if same:
        Testbed.load(directory).close()
    else:
        Services(folder=directory / "services").kill()
        shutil.rmtree(directory, ignore_errors=True)


def sweep(base: Path) -> None:
    """Take down the beds of processes that have died without closing theirs."""
    with states.locked(base):  # two who take down one bed would end the one that gets its name next
        for directory, state in states.beds(base).items():
            owner = state["owner"]
            if owner and processes.start_time(owner[0]) != owner[1]:
                clear(directory, state)
