"""The grammar of one hostfile line.

    TARGET slots=N [max_slots=N] [address=A] [port=P] [user=U]  [# comment]
    TARGET = [USER@]NAME | [USER@]NAME-WITH[1-4]RANGES | [USER@]IPV6 | [USER@][IPV6][:PORT]

`slots=` comes right after the target, as DeepSpeed wants it; what DeepSpeed ignores after it is read here,
and refused when it means nothing. A range and the keys address, port and user are our additions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.hosts.ranges import RangeSyntaxError, expand_names

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SLOTS = 4096
"""Most slots of one host: a larger number is a slip of the hand."""

MAX_NAME = 230
"""Longest name: log files are called after it, and a file name has 255 bytes."""

NAME = re.compile(rf"(?=.{{1,{MAX_NAME}}}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*")

_SLOTS = re.compile(r"slots=([0-9]+)(?=\s|#|\Z)(.*)", re.DOTALL)
_BRACKETED = re.compile(r"\[([^\[\]]*:[^\[\]]*)\](?::(.*))?", re.DOTALL)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\$?")
_SCOPE = re.compile(r"[A-Za-z0-9._-]+")
_HOST_PORT = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*):([0-9]+)")
_LOOSE_COUNT = re.compile(r"(?:[A-Za-z_-]+\s*[=:]\s*|[=:]\s*)?([1-9][0-9]{0,3})\Z")
_LATE_SLOTS = re.compile(r"(.*?)\s*\b(slots=[0-9]+)(?=\s|\Z)(.*)", re.DOTALL)
_KEYS = ("max_slots", "address", "port", "user")
_NAME_RULE = (
    "use letters, digits and . _ -, starting with a letter or a digit; address= can say what ssh connects to"
)
_PDSH_MEANING = {
    "-": "pdsh reads a leading '-' as hosts to leave out",
    "^": "pdsh reads a leading '^' as a file of host names",
    "/": "pdsh reads a leading '/' as a pattern",
}


class LineError(ValueError):
    """One line is wrong: what is wrong with it, and what to write instead."""

    def __init__(self, what: str, fix: str) -> None:
        self.what = what
        self.fix = fix
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line says: one or more names, and what holds for each of them."""

    slots: int
    names: tuple[str, ...] = ()
    address: str | None = None
    user: str | None = None
    port: int | None = None


def parse_line(line: str) -> Entry:
    """Parse a stripped line that is neither blank nor a comment.

    Raises:
        LineError: the line is not in the grammar above.
    """
    target, *after = line.split(None, 1)
    rest = after[0] if after else ""
    match = _SLOTS.fullmatch(rest)
    if match is None:
        raise _without_slots(target, rest)
    slots = _count("slots", match[1], 1, MAX_SLOTS)
    keys = _read_keys(match[2].partition("#")[0].split(), slots)
    names, user, port = _parse_target(target)
    if len(names) > 1 and keys.address is not None:
        raise LineError("one address= for several hosts", "write one line for each host")
    if user is not None and keys.user is not None:
        raise LineError("the user is given twice", f"drop user={keys.user} or {user}@")
    if port is not None and keys.port is not None:
        raise LineError("the port is given twice", f"drop port={keys.port} or :{port}")
    return Entry(slots, names, keys.address, user or keys.user, port or keys.port)


def ipv6(text: str) -> str | None:
    """Return the canonical form of an IPv6 address, scope included, or None when it is not one."""
    import ipaddress  # noqa: PLC0415  (a hostfile without IPv6 pays nothing for it)

    address, percent, scope = text.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return None
    try:
        return f"{ipaddress.IPv6Address(address).compressed}{percent}{scope}"
    except ValueError:
        return None


@dataclass(slots=True)
class _Keys:
    """The keys that may follow `slots=`."""

    max_slots: int | None = None
    address: str | None = None
    user: str | None = None
    port: int | None = None


def _read_keys(words: list[str], slots: int) -> _Keys:
    keys = _Keys()
    for word in words:
        key, equals, value = word.partition("=")
        if key not in _KEYS or not equals:
            raise _unknown_word(word, key)
        if getattr(keys, key) is not None:
            raise LineError(f"{key}= is given twice", f"keep one {key}=")
        setattr(keys, key, _READERS[key](value))
    if keys.max_slots is not None and keys.max_slots < slots:
        raise LineError(
            f"max_slots={keys.max_slots} is less than slots={slots}", "drop max_slots or raise it"
        )
    return keys


def _unknown_word(word: str, key: str) -> LineError:
    import difflib  # noqa: PLC0415  (only a wrong line pays for it)

    if key == "slots":
        return LineError("slots= is given twice", "keep one slots=")
    close = difflib.get_close_matches(key.replace("-", "_"), _KEYS, n=1)
    fix = f"did you mean {close[0]}=?" if close else "drop it, or put # before a comment"
    return LineError(f"{word!r} after slots= means nothing", f"{fix} (keys: {', '.join(_KEYS)})")


def _count(key: str, text: str, low: int, high: int) -> int:
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not low <= int(text) <= high:
        fix = "leave the host out, or write slots=N" if key == "slots" else f"write {key}=N"
        raise LineError(f"{key}={text[:20]} is not a number from {low} to {high}", fix)
    return int(text)


def _read_address(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if NAME.fullmatch(bare) is None and ipv6(bare) is None:
        raise LineError(f"address={text} is neither a host name nor an IP address", "write address=10.0.0.7")
    return bare


def _read_user(text: str) -> str:
    if _USER.fullmatch(text) is None:
        raise LineError(f"{text!r} is not a user name", "letters, digits and . _ + - may be used")
    return text


_READERS: dict[str, Callable[[str], int | str]] = {
    "max_slots": lambda text: _count("max_slots", text, 1, MAX_SLOTS),
    "address": _read_address,
    "port": lambda text: _count("port", text, 1, 65535),
    "user": _read_user,
}


def _parse_target(target: str) -> tuple[tuple[str, ...], str | None, int | None]:
    """Split a target into names, user and port."""
    before, at, rest = target.rpartition("@")
    user = _read_user(before) if at else None
    bracketed = _BRACKETED.fullmatch(rest)
    if bracketed is not None:
        return _parse_bracketed(bracketed[1], bracketed[2], user)
    if ":" in rest and ipv6(rest) is not None:
        return (rest,), user, None
    names = _expand(rest) if "[" in rest or "]" in rest else (rest,)
    for name in names:
        if NAME.fullmatch(name) is None:
            raise _bad_name(name)
    return names, user, None


def _parse_bracketed(
    address: str, port: str | None, user: str | None
) -> tuple[tuple[str, ...], str | None, int | None]:
    if ipv6(address) is None:
        raise LineError(f"{address!r} is not an IPv6 address", "write it as [fe80::1]")
    return (address,), user, None if port is None else _count("port", port, 1, 65535)


def _expand(text: str) -> tuple[str, ...]:
    try:
        return tuple(expand_names(text))
    except RangeSyntaxError as error:
        raise LineError(f"bad range: {error}", "write ranges as node[001-128] or node[1-4,7]") from error


def _bad_name(name: str) -> LineError:
    if name[:1] in _PDSH_MEANING:
        return LineError(
            f"{name!r} is not a host name: {_PDSH_MEANING[name[0]]}", "start with a letter or a digit"
        )
    if "," in name:
        return LineError(
            f"{name!r} holds a comma, which parts names", "write one host a line, or node[1,3] slots=N"
        )
    port = _HOST_PORT.fullmatch(name)
    if port is not None:
        return LineError(
            f"{name!r} is not a host name", f"give the port after the slots: {port[1]} slots=N port={port[2]}"
        )
    if ":" in name:
        what = f"{name!r} is neither a host name nor IPv6; pdsh reads what is before ':' as a way to connect"
        return LineError(what, "write the bare host name")
    if len(name) > MAX_NAME:
        return LineError(
            f"a host name of {len(name)} characters", f"at most {MAX_NAME} fit a log file's name"
        )
    return LineError(f"{name!a} is not a host name", _NAME_RULE)


def _without_slots(target: str, rest: str) -> LineError:
    """Explain a line that lacks `TARGET slots=N`, with the line that was probably meant."""
    what = "no slots=N right after the host name"
    if rest.startswith("slots="):
        value = rest[len("slots=") :].split()
        what = f"slots={value[0] if value else ''} is not a whole number"
    meant = _guess(target, rest)
    fix = f'did you mean "{meant}"?' if meant else "write HOST slots=N, such as worker-0 slots=8"
    return LineError(what, fix)


def _guess(target: str, rest: str) -> str | None:
    """Return the line that was meant by `w 4`, `w:4`, `w gpus=4`, `w slots = 4`, `w port=22 slots=4`."""
    late = _LATE_SLOTS.fullmatch(rest)
    if late is not None:
        if not all(word.partition("=")[0] in _KEYS for word in late[1].split()):
            return None
        return " ".join([target, late[2], *late[1].split(), *late[3].split()])
    name, colon, count = target.partition(":")
    loose = _LOOSE_COUNT.match(count if colon and not rest else rest)
    if loose is None or NAME.fullmatch(name) is None:
        return None
    return f"{name} slots={loose[1]}"
