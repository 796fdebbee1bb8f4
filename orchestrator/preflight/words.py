"""What a host said on its way home, and what ssh's own words mean. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.launchers.base import SENTINEL
from orchestrator.preflight.probes.answers import PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

UNKNOWN = "unreachable"
"""The kind of what no words of ssh tell."""

_LOGGED = re.compile(r"(?P<alias>[A-Za-z0-9_][A-Za-z0-9._-]*): ?(?P<text>.*)\Z", re.DOTALL)
_PDSH = re.compile(r"pdsh@[^:]*: \S+: ssh (exited with exit code|killed by signal) ")


def split_log(log: str, aliases: Collection[str]) -> dict[str, list[str]]:
    """Return the lines of every host in a launcher's log, in their order.

    The log has `alias: line` for each line of a host (launchers.base.LastWords), and bare lines of the
    launcher itself, which are left out.
    """
    found: dict[str, list[str]] = {}
    for line in log.split("\n"):
        match = _LOGGED.match(line)
        if match and match["alias"] in aliases and not _PDSH.match(match["text"]):
            found.setdefault(match["alias"], []).append(match["text"])
    return found


def told_by(lines: Sequence[str]) -> str:
    """Return why a host did not answer, from its lines: node.sh's word to the user, else the last of all."""
    spoken = [line.strip() for line in lines if line.strip() and not line.startswith(PREFIX)]
    told = [line[len(SENTINEL) :] for line in spoken if line.startswith(SENTINEL)]
    return told[-1] if told else "; ".join(spoken[-3:])


@dataclass(frozen=True)
class Unreachable:
    """What kept us out of a host: a short name for the table, and what to do about it."""

    kind: str
    fix: str


# OpenSSH 9.2 and paramiko 5.1 in their own words; the first that fits counts.
_KINDS = (
    (
        r"remote host identification has changed|the key has changed",
        "host key changed",
        "if the host was set up anew, remove its old key (ssh-keygen -R NAME); else somebody poses as it",
    ),
    (
        r"host key verification failed|no matching host key",
        "host key unknown",
        "connect once by hand, or set cluster.ssh.accept_new_host_keys: true",
    ),
    (
        r"permission denied|authentication fail|too many authentication",
        "login refused",
        "put your public key on the host (ssh-copy-id NAME), or set cluster.ssh.user or cluster.ssh.identity",
    ),
    (
        r"could not resolve|service not known|temporary failure in name|nodename nor|no address associated",
        "name unknown",
        "correct the name in the hostfile, or give the host an address there (or HostName in ssh's config)",
    ),
    (r"connection refused", "no sshd", "start sshd there, or set cluster.ssh.port"),
    (
        r"no route to host|network is unreachable|host is down",
        "no route",
        "the host is down, or its network is: leave it out (--drop-bad), or repair it",
    ),
    (
        r"timed? ?out|timeout",
        "timeout",
        "the host is down, or a firewall drops our packets: leave it out (--drop-bad), or repair it",
    ),
    (
        r"kex_exchange|banner|connection (closed|reset)",
        "connection closed",
        "its sshd refuses so many connections at once (MaxStartups): set cluster.ssh.fanout: 8",
    ),
)


def classify(words: str) -> Unreachable:
    """Return what ssh's words mean."""
    for pattern, kind, fix in _KINDS:
        if re.search(pattern, words, re.IGNORECASE):
            return Unreachable(kind, fix)
    return Unreachable(UNKNOWN, "try it by hand: ssh NAME true")
