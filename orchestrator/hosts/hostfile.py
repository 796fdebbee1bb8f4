"""Hosts and their slots: the pool a job runs on.

A pool keeps the order of the hostfile: it is the order of node ranks, and the first host is the master.

A hostfile is DeepSpeed's: what its launcher reads as intended gives the same hosts and slots here. What it
accepts by accident (`slots=4x`, a byte order mark, two entries that differ in case) is an error with the
line, and a hostfile that is missing never means "train on this machine".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.errors import HostfileError, Problem
from orchestrator.hosts.hostline import MAX_NAME, MAX_SLOTS, Entry, LineError, ipv6, parse_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_SHOWN = 80  # characters of a bad line that an error shows
_BOM = "\ufeff"
_PLAIN = re.compile(
    rf"([A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}})\s+slots=([0-9]{{1,4}})(?:\s*#.*)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Host:
    """One host and the slots of it that the job uses.

    Attributes:
        name: what the host is called everywhere (logs, filters, verdicts); unique in its pool.
        slots: ids of the usable slots, ascending. An id is the index of a GPU on that host
            (or just of a rank, where there is no GPU).
        address: what ssh connects to, where it is not `name` (an IPv6 address, another name).
        user: ssh user, where it is not the job's or the one of the user's ssh configuration.
        port: ssh port, likewise.
    """

    name: str
    slots: tuple[int, ...]
    address: str | None = None
    user: str | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class HostPool:
    """Hosts in hostfile order; never empty once resolved."""

    hosts: tuple[Host, ...]

    @property
    def world_size(self) -> int:
        """Return the number of slots over all hosts, which is the number of ranks."""
        return sum(len(host.slots) for host in self.hosts)


def parse_hostfile(text: str, where: str) -> HostPool:
    """Parse the text of a hostfile.

    Args:
        text: one `TARGET slots=N` a line (the grammar is in `orchestrator.hosts.hostline`), blank lines and
            lines that start with `#`.
        where: name of the file, for errors.

    Returns:
        Hosts in the order of their lines, each with slots 0 to N-1.

    Raises:
        HostfileError: with one problem for every bad line, or when no host is named.
    """
    reader = _Reader(where)
    if text.startswith(_BOM):
        reader.complain(1, "the file starts with a byte order mark", None, "save it as UTF-8 without BOM")
        text = text[1:]
    for number, line in enumerate(_lines(text), 1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            reader.read(number, stripped)
    if not reader.hosts and not reader.problems:
        reader.problems.append(Problem("the hostfile names no host", where, None, "add HOST slots=N lines"))
    if reader.problems:
        raise HostfileError(*reader.problems)
    return HostPool(tuple(reader.hosts))


def read_hostfile(path: Path, key: str = "") -> HostPool:
    """Read and parse a hostfile.

    Args:
        path: the file.
        key: key of the job file that names it, if one does.

    Raises:
        HostfileError: the file is missing, cannot be read, is not UTF-8, or has bad lines.
    """
    where = str(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        fix = "write HOST slots=N, one host a line; nothing is started on this machine instead"
        raise HostfileError(_unread("the hostfile does not exist", where, key, fix)) from error
    except OSError as error:
        what = f"the hostfile cannot be read: {error.strerror or type(error).__name__}"
        raise HostfileError(_unread(what, where, key, "check the path")) from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        value = f"byte 0x{data[error.start]:02x}"
        raise HostfileError(
            Problem("the hostfile is not UTF-8 text", f"{where}:{line}", value, "save it as UTF-8")
        ) from error
    return parse_hostfile(text, where)


def _unread(what: str, where: str, key: str, fix: str) -> Problem:
    return Problem(what, key, where, fix) if key else Problem(what, where, None, fix)


def local_pool(nodes: int, slots: int) -> HostPool:
    """Return `nodes` hosts of `slots` slots, simulated on this machine: host-0, host-1 and so on."""
    ids = tuple(range(slots))
    return HostPool(tuple(Host(f"host-{index}", ids) for index in range(nodes)))


class _Reader:
    """Collects the hosts and the problems of one hostfile."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.hosts: list[Host] = []
        self.problems: list[Problem] = []
        self._line_of: dict[str, int] = {}
        self._slots: dict[int, tuple[int, ...]] = {}

    def complain(self, number: int, what: str, value: str | None, fix: str) -> None:
        self.problems.append(Problem(what, f"{self.where}:{number}", value, fix))

    def read(self, number: int, line: str) -> None:
        plain = _PLAIN.fullmatch(line)
        if plain is not None and 0 < int(plain[2]) <= MAX_SLOTS:
            self._add(number, (plain[1],), _plain_entry(int(plain[2])))
            return
        try:
            entry = parse_line(line)
        except LineError as error:
            self.complain(number, error.what, _shown(line), error.fix)
            return
        self._add(number, entry.names, entry)

    def _add(self, number: int, names: Iterable[str], entry: Entry) -> None:
        ids = self._slots.get(entry.slots)
        if ids is None:
            ids = self._slots[entry.slots] = tuple(range(entry.slots))
        for name in names:
            key = _key(name)
            first = self._line_of.get(key)
            if first is not None:
                what = f"host {name} is already on line {first}"
                self.complain(number, what, None, "keep one line for each host (case does not count)")
                return
            self._line_of[key] = number
            self.hosts.append(Host(name, ids, entry.address, entry.user, entry.port))


@cache
def _plain_entry(slots: int) -> Entry:
    return Entry(slots)


def _key(name: str) -> str:
    """Return what two names of one host have in common: case, or the way an IPv6 address is written."""
    return ((":" in name and ipv6(name)) or name).lower()


def _lines(text: str) -> list[str]:
    """Split as Python reads a file: at newlines only, not at form feeds or U+2028."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _shown(line: str) -> str:
    """Return a line fit for a message: one line, not endless, what cannot be seen made visible."""
    clipped = line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
    return clipped if clipped.isprintable() and clipped.isascii() else ascii(clipped)
