"""The ssh configuration of one login host: what the job file says, then the user's own, then ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import LoginError, Problem
from orchestrator.launchers.ssh_plumbing import split_port

if TYPE_CHECKING:
    from orchestrator.login.place import Place


def write_ssh_config(place: Place) -> str:
    """Write `ssh_config` into the connection's folder; return the name that ssh is to be asked for.

    Raises:
        LoginError: a value cannot be written into such a file.
    """
    where, port = split_port(place.host)
    user, _, name = where.rpartition("@")
    spec = place.spec
    lines = [f"Host {_word(name)}"]
    lines += [f"    User {_quoted(user)}"] if user else []
    lines += [f"    Port {port}"] if port else []
    lines += [f"    ProxyJump {_word(spec['jump'].replace(' ', ''))}"] if spec.get("jump") else []
    lines += ["Match all"]
    lines += [f"    IdentityFile {_quoted(spec['identity'])}"] if spec.get("identity") else []
    lines += [f"    UserKnownHostsFile {_quoted(spec['known_hosts'])}"] if spec.get("known_hosts") else []
    lines += ["    StrictHostKeyChecking accept-new"] if spec.get("accept_new_host_keys") else []
    lines += [f"    ConnectTimeout {spec.get('connect_timeout', 10)}"]
    lines += ["    BatchMode yes"]  # for `ssh -W` through a jump host, which has no terminal to ask at
    lines += [f"    {_word(key)} {_line(value)}" for key, value in (spec.get("options") or {}).items()]
    lines += [f"Include {_quoted(spec.get('config') or str(Path.home() / '.ssh/config'))}"]
    lines += ["Match all", 'Include "/etc/ssh/ssh_config"', "Match all", "    ServerAliveInterval 15"]
    (place.folder / "ssh_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def _quoted(value: str) -> str:
    if any(sign in value for sign in '"\\') or not value.isprintable():
        raise LoginError(Problem("cannot be written into an ssh configuration", "cluster.login", value))
    return f'"{value}"'


def _line(value: str) -> str:
    if not value.isprintable():
        raise LoginError(Problem("cannot be written into an ssh configuration", "cluster.login", value))
    return value


def _word(value: str) -> str:
    if not value or any(sign.isspace() or sign in "\"'#*?!" for sign in value):
        raise LoginError(Problem("not one word", "cluster.login", value, "write user@host:port"))
    return value
