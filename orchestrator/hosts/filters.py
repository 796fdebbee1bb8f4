"""Include and exclude filters, as in `deepspeed --include` and `--exclude`.

    FILTER = SPEC[@SPEC...]
    SPEC   = NAME[:SLOT[,SLOT...]]          DeepSpeed's
           | [IPV6][:SLOT...]               ours: DeepSpeed has no way to say these
           | NAME-WITH[0-1]RANGES[:SLOT...] ours
    SLOT   = N | N-M                        N-M is ours

Without slots a spec means all of them. The result is in the order of the pool, whatever the order of the
filter. What is ours cannot change the meaning of a filter that DeepSpeed takes: it refuses all three.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.errors import FilterError, Problem
from orchestrator.hosts import HostPool
from orchestrator.hosts.ranges import RangeSyntaxError, expand_names, expand_numbers, fold_numbers

if TYPE_CHECKING:
    from orchestrator.hosts import Host

_IPV6_SPEC = re.compile(r"\[([^\[\]]*:[^\[\]]*)\](?::(.*))?", re.DOTALL)
_GRAMMAR = "NAME[:SLOT[,SLOT...]], parted by @"
_SHOWN_NAMES = 5
_SUGGESTIONS = 3  # looking for similar names among 10,000 takes a while: not for every wrong one


def apply_filters(
    pool: HostPool, include: str | None = None, exclude: str | None = None, *, partial: bool = False
) -> HostPool:
    """Return the hosts and slots of `pool` that a filter leaves, in the order of the pool.

    Args:
        pool: what the filter chooses from.
        include: hosts and slots to use; None or "" when there is no such filter.
        exclude: hosts and slots to leave out; likewise.
        partial: the pool is a part of the hosts that a filter may name (those a scheduler gave), so
            that a name it does not hold is no error.

    Raises:
        FilterError: both are given, a spec is malformed, names an unknown host or slot, or says two
            things about one host, or nothing is left. All wrong specs are reported at once.
    """
    if include and exclude:
        what = "include and exclude are both given"
        raise FilterError(Problem(what, "include, exclude", f"{include} and {exclude}", "keep one of them"))
    if include:
        return _included(pool, include, _slots(pool, _Filter(pool, include, "include", partial).read()))
    if exclude:
        return _without(pool, exclude, _slots(pool, _Filter(pool, exclude, "exclude", partial).read()))
    return pool


def named_hosts(text: str, where: str) -> dict[str, tuple[int, ...] | None]:
    """Return what a filter says, without knowing which hosts there are.

    Args:
        text: the filter.
        where: what it is called in errors: include or exclude.

    Returns:
        Slots by host name in the order of the filter; None for a host named as a whole.

    Raises:
        FilterError: a spec is malformed, or two say different things about one host.
    """
    return _Filter(HostPool(()), text, where, partial=True).read()


def _slots(pool: HostPool, named: dict[str, tuple[int, ...] | None]) -> dict[str, tuple[int, ...]]:
    """Return which slots of the pool's hosts a filter names."""
    mentioned = (host for host in pool.hosts if host.name in named)
    return {host.name: _or_all(named[host.name], host) for host in mentioned}


def _or_all(slots: tuple[int, ...] | None, host: Host) -> tuple[int, ...]:
    return host.slots if slots is None else slots


def _included(pool: HostPool, text: str, chosen: dict[str, tuple[int, ...]]) -> HostPool:
    if not chosen:
        what = f"none of these hosts is among the {len(pool.hosts)} of the pool: {_some(_names(pool))}"
        raise FilterError(Problem(what, "include", text, "name hosts of the pool"))
    hosts = (_with_slots(host, chosen[host.name]) for host in pool.hosts if host.name in chosen)
    return HostPool(tuple(hosts))


def _names(pool: HostPool) -> list[str]:
    return [host.name for host in pool.hosts]


def _without(pool: HostPool, text: str, dropped: dict[str, tuple[int, ...]]) -> HostPool:
    left = (_with_slots(host, _difference(host.slots, dropped.get(host.name, ()))) for host in pool.hosts)
    hosts = tuple(host for host in left if host.slots)
    if not hosts:
        what = f"no host is left: {_some(list(dropped))} out of {len(pool.hosts)} in the pool"
        raise FilterError(Problem(what, "exclude", text, "leave at least one slot of one host"))
    return HostPool(hosts)


def _difference(slots: tuple[int, ...], dropped: tuple[int, ...]) -> tuple[int, ...]:
    if dropped == slots:
        return ()
    return tuple(slot for slot in slots if slot not in dropped) if dropped else slots


def _with_slots(host: Host, slots: tuple[int, ...]) -> Host:
    return host if slots == host.slots else replace(host, slots=slots)


class _Filter:
    """One filter on its way from text to slots by host name."""

    def __init__(self, pool: HostPool, text: str, where: str, partial: bool) -> None:
        self._text = text
        self._where = where
        self._partial = partial
        self._hosts = {host.name: host for host in pool.hosts}
        self._whole: dict[str, None] = {}  # a set in the order of the filter
        self._parts: dict[str, set[int]] = {}
        self._problems: list[Problem] = []
        self._searches = 0

    def read(self) -> dict[str, tuple[int, ...] | None]:
        """Return the slots of each named host, None for all; raise FilterError with all problems."""
        for spec in self._text.split("@"):
            self._read_spec(spec)
        for name in self._parts:
            if name in self._whole:
                self._complain(
                    f"host {name} is named as a whole and with slots",
                    self._text,
                    f"keep {name} or {name}:SLOTS",
                )
        if self._problems:
            raise FilterError(*self._problems)
        whole: dict[str, tuple[int, ...] | None] = dict.fromkeys(self._whole)
        return whole | {name: tuple(sorted(ids)) for name, ids in self._parts.items()}

    def _complain(self, what: str, value: str, fix: str) -> None:
        self._problems.append(Problem(what, self._where, value if value.isprintable() else ascii(value), fix))

    def _read_spec(self, spec: str) -> None:
        if not spec:
            self._complain("an empty spec: @ parts specs, and one is missing", self._text, "drop the extra @")
        elif any(character.isspace() for character in spec):
            self._complain("a filter holds no spaces", repr(spec), f"write {_GRAMMAR}")
        else:
            self._read_names(spec, *_split(spec))

    def _read_names(self, spec: str, names: str, slots: str | None) -> None:
        if slots is not None and ":" in slots:
            fix = "put an IPv6 address in brackets, [fe80::1]:0,1; other names take one : before their slots"
            self._complain("more than one : in a spec", spec, fix)
            return
        try:
            expanded = [names] if names in self._hosts else expand_names(names)
            ids = None if slots is None else {int(number) for number in expand_numbers(slots)}
        except RangeSyntaxError as error:
            self._complain(f"bad range or slot: {error}", spec, f"write {_GRAMMAR}")
            return
        for name in expanded:
            self._read_host(spec, name, ids)

    def _read_host(self, spec: str, name: str, ids: set[int] | None) -> None:
        host = self._hosts.get(name)
        if host is None and not self._partial:
            self._complain(f"host {name!r} is not in the hostfile", spec, self._advice(name))
        elif ids is None:
            self._whole[name] = None
        elif host is not None and not ids.issubset(host.slots):
            missing = fold_numbers(sorted(ids.difference(host.slots)))
            self._complain(f"host {name} has no slot {missing}", spec, f"it has {fold_numbers(host.slots)}")
        else:
            self._parts.setdefault(name, set()).update(ids)

    def _advice(self, name: str) -> str:
        """Say what may have been meant by a name that is unknown."""
        if "," in name:
            return "hosts are parted by @, only slots by commas"
        if any(host.user == name for host in self._hosts.values()):
            return "name the host without its user: @ parts specs"
        close = self._similar(name)
        known = _some(list(self._hosts))
        return f"did you mean {' or '.join(close)}?" if close else f"hosts are {known}"

    def _similar(self, name: str) -> list[str]:
        import difflib  # noqa: PLC0415  (only a wrong name pays for it)

        self._searches += 1
        if self._searches > _SUGGESTIONS:
            return []
        folded = {known.lower(): known for known in self._hosts}
        return [folded[close] for close in difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.75)]


def _split(spec: str) -> tuple[str, str | None]:
    """Split `NAME:SLOTS` or `[IPV6]:SLOTS`; no slots and no colon give None."""
    address = _IPV6_SPEC.fullmatch(spec)
    if address is not None:
        return address[1], address[2]
    name, colon, slots = spec.partition(":")
    return name, slots if colon else None


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - _SHOWN_NAMES
    shown = ", ".join(names[:_SHOWN_NAMES])
    return f"{shown} and {rest} more" if rest > 0 else shown
