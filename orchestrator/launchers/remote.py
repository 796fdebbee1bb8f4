"""One ssh connection made by paramiko as the user's own ssh would make it.

`ssh -G` says what ssh would do (Include, Match, ProxyJump, certificates, agent): paramiko's own reader of
ssh configurations knows neither Include nor ProxyJump. A jump host is reached by `ssh -W`, which honours
everything on the way.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import paramiko

from orchestrator.launchers.ssh_plumbing import Proxy, pump, read_lines, split_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEEPALIVE_SECONDS = 15


class RemoteError(Exception):
    """A host could not be reached or would not let us in; the text is for the user."""


@dataclass(frozen=True)
class Target:
    """What `ssh -G` says of one host.

    Attributes:
        options: option (lower case) -> its values, as ssh -G prints them.
    """

    hostname: str
    port: int
    user: str
    options: Mapping[str, tuple[str, ...]]

    def first(self, option: str, default: str = "") -> str:
        """Return an option's first value."""
        return self.options.get(option, (default,))[0]

    def paths(self, option: str) -> list[str]:
        """Return the files an option names (several on one line, or several lines) that exist."""
        files: list[Path] = []
        for value in self.options.get(option, ()):
            whole = Path(value).expanduser()  # ssh -G does not quote: a space may separate or belong
            files += [whole] if whole.is_file() else [Path(word).expanduser() for word in value.split()]
        return [str(path) for path in files if path.is_file()]


def resolve(folder: Path, alias: str) -> Target:
    """Ask ssh what it would do for a host of the run.

    Args:
        folder: where the run's `ssh_config` is.
        alias: the host's name in it.

    Raises:
        RemoteError: there is no ssh, or it refuses the configuration.
    """
    try:
        command = ["ssh", "-F", "ssh_config", "-G", alias]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RemoteError(f"cannot run ssh to read its configuration: {error.strerror}") from error
    if done.returncode:
        raise RemoteError(done.stderr.strip())
    return parse_target(done.stdout)


def parse_target(text: str) -> Target:
    """Read what `ssh -G` (OpenSSH 9.2) prints: one `option value` a line."""
    options: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        options[name] = (*options.get(name, ()), value)
    return Target(options["hostname"][0], int(options["port"][0]), options["user"][0], options)


class _AcceptNew(paramiko.MissingHostKeyPolicy):
    """Trust a host never seen before and remember it (StrictHostKeyChecking accept-new)."""

    def __init__(self, known_hosts: str) -> None:
        self._known_hosts = known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Add the key, and write it down as ssh does."""
        client.get_host_keys().add(hostname, key.get_name(), key)
        path = Path(self._known_hosts).expanduser()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


class Remote:
    """An open connection to one host, used for everything the run does there."""

    def __init__(self, folder: Path, alias: str, log_in: Callable[[Target], Any] | None = None) -> None:
        self._folder = folder
        self.target = self._target = resolve(folder, alias)
        self._strategy = log_in(self._target) if log_in else None  # in place of keys alone
        self._client = paramiko.SSHClient()
        self._proxy: Proxy | None = None
        self._trust()
        self._connect()

    def _trust(self) -> None:
        for path in self._target.paths("userknownhostsfile") + self._target.paths("globalknownhostsfile"):
            with contextlib.suppress(OSError):
                self._client.load_system_host_keys(path)
        mode = self._target.first("stricthostkeychecking", "ask")
        policy: paramiko.MissingHostKeyPolicy = paramiko.RejectPolicy()
        if mode in ("accept-new", "no", "off", "false"):
            known = self._target.paths("userknownhostsfile")
            policy = _AcceptNew(known[0] if known else self._target.first("userknownhostsfile").split()[0])
        self._client.set_missing_host_key_policy(policy)

    def _connect(self) -> None:
        target = self._target
        agent = target.first("identityagent", "SSH_AUTH_SOCK") != "none"
        try:
            self._client.connect(
                target.hostname,
                target.port,
                target.user,
                key_filename=cast("Any", target.paths("identityfile")),  # the stubs know one file only
                allow_agent=agent and target.first("identitiesonly", "no") != "yes",
                look_for_keys=False,
                timeout=self._seconds(),
                banner_timeout=30,
                auth_timeout=30,
                auth_strategy=self._strategy,
                sock=cast("Any", self._open_proxy()),  # anything with send, recv, settimeout and close
            )
        except (paramiko.SSHException, OSError) as error:
            told = self._explain(error)  # asks the proxy, which close() ends
            self.close()
            raise RemoteError(told) from error
        transport = self._client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE_SECONDS)

    def _seconds(self) -> float:
        text = self._target.first("connecttimeout", "10")
        return float(text) if text.isdigit() else 10.0

    def _open_proxy(self) -> Proxy | None:
        """Reach a host behind others as ssh does."""
        jump, command = self._target.first("proxyjump", "none"), self._target.first("proxycommand", "none")
        if jump != "none":
            *before, last = jump.strip('"').split(",")  # ssh -G keeps the quotes of the configuration
            via = f"-J {','.join(before)} " if before else ""
            place, port = split_port(last)
            where = f"[{self._target.hostname}]:{self._target.port}"
            config = self._folder / "ssh_config"
            ports = ["-p", port] if port else []
            self._proxy = Proxy(["ssh", "-F", str(config), *via.split(), *ports, "-W", where, place])
        elif command != "none":
            filled = command.replace("%h", self._target.hostname).replace("%p", str(self._target.port))
            self._proxy = Proxy(["sh", "-c", "exec " + filled.replace("%r", self._target.user)])
        return self._proxy

    def _explain(self, error: Exception) -> str:
        where = f"{self._target.user}@{self._target.hostname} port {self._target.port}"
        if isinstance(error, paramiko.BadHostKeyException):
            return f"{where}: Host key verification failed: the key has changed"
        if isinstance(error, paramiko.AuthenticationException):
            return f"{where}: Permission denied: {error}"
        if "not found in known_hosts" in str(error):
            return (
                f"{where}: Host key verification failed: no key of it is in known_hosts; "
                "connect once by hand, or set cluster.ssh.accept_new_host_keys: true"
            )
        if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
            error = next(iter(error.errors.values()))  # its own words leave out why
        said = self._proxy.last_words() if self._proxy is not None else ""
        said = said or (error.strerror or "" if isinstance(error, OSError) else "")
        return f"{where}: {said or error or type(error).__name__}"

    def run(self, command: str, take_line: Callable[[str], None], data: bytes = b"") -> int:
        """Run a command and return its exit code; 255 when the connection was lost under it.

        Args:
            command: for the user's shell on the host.
            take_line: called with each line of its output.
            data: its input.
        """
        transport = self._client.get_transport()
        if transport is None:
            return 255
        try:
            channel = transport.open_session(timeout=30)
            channel.set_combine_stderr(True)
            channel.exec_command(command)
            if data:
                channel.sendall(data)
            channel.shutdown_write()
            read_lines(channel, take_line)
            code = channel.recv_exit_status()
        except (paramiko.SSHException, OSError):
            return 255
        return code if code >= 0 else 255

    @property
    def transport(self) -> paramiko.Transport | None:
        """Return paramiko's end of the connection; None when it is closed."""
        return self._client.get_transport()

    def forward_back(self, port: int) -> None:
        """Let the host reach our port through this connection, where it cannot connect to us itself."""
        transport = self._client.get_transport()
        if transport is None:
            return

        def accept(channel: paramiko.Channel, _origin: object, _server: object) -> None:
            threading.Thread(target=pump, args=(channel, port), daemon=True).start()

        with contextlib.suppress(paramiko.SSHException):  # forwarding may be forbidden there
            transport.request_port_forward("127.0.0.1", port, accept)

    def close(self) -> None:
        """Close the connection and the way to it."""
        self._client.close()
        if self._proxy is not None:
            self._proxy.close()
