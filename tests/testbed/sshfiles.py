"""Keys and configuration of ssh and sshd for one bed: host keys are real and verified."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.testbed.requirements import TestbedError, tool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.testbed.accounts import User
    from tests.testbed.host import Node

BANNER = "************ Authorised use only ************\n$HOME `date` is not expanded here\n"


@dataclass(frozen=True, slots=True)
class Client:
    """Files with which one user of the submit side reaches the hosts, and a key that all hosts accept."""

    key: Path
    known_hosts: Path
    config: Path


def make_keys(paths: Iterable[Path]) -> None:
    """Generate ed25519 keys, all at the same time."""
    running: list[subprocess.Popen[bytes]] = []
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        argv = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", path.parent.name, "-f", str(path)]
        running.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL))
    codes = [process.wait() for process in running]
    if any(codes):
        raise TestbedError("ssh-keygen failed")


def public(key: Path) -> str:
    """Return `type base64` of a key's public half."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


def write_sshd_config(node: Node, authorized_keys: Path, banner: Path | None) -> None:
    """Write a host's sshd_config. MaxStartups stays sshd's own default, 10:30:100."""
    node.sshd_config.write_text(
        f"Port {node.port}\n"
        f"HostKey {node.host_key}\n"
        f"AuthorizedKeysFile {authorized_keys}\n"
        "UsePAM no\nStrictModes no\nPidFile none\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nPrintMotd no\nSubsystem sftp internal-sftp\n"
        f"Banner {banner or 'none'}\n"
    )


def write_client(directory: Path, key: Path, nodes: Sequence[Node], user: User) -> Client:
    """Write the client files of one user into a folder of its own."""
    client = Client(directory / "id_ed25519", directory / "known_hosts", directory / "ssh_config")
    directory.mkdir(parents=True)
    shutil.copyfile(key, client.key)
    shutil.copyfile(f"{key}.pub", f"{client.key}.pub")
    client.known_hosts.write_text("".join(_known_host(node) for node in nodes))
    client.config.write_text(_client_config(client, nodes, user))
    client.key.chmod(0o600)
    for path in (directory, *directory.iterdir()):
        os.chown(path, user.uid, user.uid)
    return client


def _known_host(node: Node) -> str:
    names = [node.name, node.outer_address, node.address, node.address6]
    if node.port != 22:
        names = [f"[{name}]:{node.port}" for name in names]
    return f"{','.join(dict.fromkeys(names))} {public(node.host_key)}\n"


def _client_config(client: Client, nodes: Sequence[Node], user: User) -> str:
    lines = []
    for node in nodes:
        lines += [f"Host {node.name}", f"  HostName {node.outer_address}"]
        lines += [f"Host {node.name} {node.outer_address} {node.address6}", f"  Port {node.port}"]
        lines += [f"  ProxyJump {node.via}"] if node.via else []
    lines += ["Host *", f"  User {user.name}", f'  IdentityFile "{client.key}"', "  IdentitiesOnly yes"]
    lines += [f'  UserKnownHostsFile "{client.known_hosts}"', "  GlobalKnownHostsFile /dev/null"]
    lines += ["  StrictHostKeyChecking yes", "  BatchMode yes", "  ConnectTimeout 10"]
    return "\n".join(lines) + "\n"
