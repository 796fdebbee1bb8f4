"""What c10d's flight recorders tell of ranks that wait: who has not joined a collective, or is in another.

Collectives of a group have numbers, and all its ranks must join them in the same order. So ranks wait in
the first that has not completed for those that have not joined it. One of these may wait in another group.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.hosts.ranges import fold_numbers
from orchestrator.monitor.flight_file import Call, Name, Record, read

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence
    from pathlib import Path

_FILE = re.compile(r"\.rank(\d+)\.fr\.\d+$")
_DEFAULT = "default_pg"


@dataclass(frozen=True, slots=True)
class Finding:
    """Why ranks wait.

    Attributes:
        kind: `behind`: culprits have not joined; `differs`: they are in another collective under the same
            number; `cycle`: they wait in another group for those that wait for them.
        group: what the group is for, or its name.
        number: of the collective in its group.
        op: what those that wait are in.
        place: the line at which they joined it; "" where no Python did.
        waiting: they.
        culprits: whom they wait for.
        since: when the first of them joined, epoch seconds of its host.
        instead: where the culprits are: `broadcast (train.py:60 evaluate)`; "" where they are in none.
        absent: more ranks that have joined neither, where the culprits are in another collective.
    """

    kind: str
    group: str
    number: int
    op: str
    place: str
    waiting: tuple[int, ...]
    culprits: tuple[int, ...]
    since: float
    instead: str = ""
    absent: tuple[int, ...] = ()

    @property
    def never_resolves(self) -> bool:
        """Tell whether waiting longer cannot help."""
        return self.kind in {"differs", "cycle"}

    @property
    def what(self) -> str:
        """Return the collective: `all_reduce #412 (train.py:57 step)`."""
        group = "" if self.group in {_DEFAULT, "0", ""} else f" of group {self.group!r}"
        return f"{self.op} #{self.number}{group}" + (f" ({self.place})" if self.place else "")

    @property
    def words(self) -> str:
        """Return it in one sentence without a stop."""
        who, others = named(self.culprits), named(self.waiting)
        verb = "is" if len(self.culprits) == 1 else "are"
        wait = "waits" if len(self.waiting) == 1 else "wait"
        if self.kind == "behind":
            return f"{who} did not join {self.what}, in which {others} {wait}"
        sides = f"{who} {verb} in {self.instead} where {others} {wait} in {self.what}"
        if self.kind == "differs":
            return f"{sides}; {named(self.absent)} joined neither" if self.absent else sides
        return f"{sides}: they wait for one another"

    def to_json(self) -> dict[str, Any]:
        """Return it as an event holds it."""
        names = ("kind", "group", "number", "op", "place", "since", "instead", "words")
        lists = ("waiting", "culprits", "absent")
        told = {name: getattr(self, name) for name in names}
        return told | {name: list(getattr(self, name)) for name in lists}


def named(ranks: Iterable[int]) -> str:
    """Return `rank 3`, or `ranks 0-2,4`."""
    found = sorted(ranks)
    return f"rank{'s' * (len(found) != 1)} {fold_numbers(found)}"


def read_all(folder: Path, ranks: Container[int] | None = None, most: int = 256 << 20) -> dict[int, Record]:
    """Return what the recorders' files in an attempt's `dumps` tell, by rank.

    Args:
        folder: the attempt's `dumps`.
        ranks: whose; None for all.
        most: bytes of all files together; what comes after them is left out.
    """
    found: dict[int, Record] = {}
    left = most
    for path in sorted(folder.glob("*.fr.*")):
        match = _FILE.search(path.name)
        if match is None or (ranks is not None and int(match[1]) not in ranks):
            continue
        with contextlib.suppress(OSError):
            left -= path.stat().st_size
        record = read(path, int(match[1])) if left >= 0 else None
        if record is not None:
            found[record.rank] = record
    return found


def examine(records: Mapping[int, Record], world: int) -> Finding | None:
    """Return why ranks wait for one another; None where the records do not tell.

    Args:
        records: by rank; ranks of which there is none may be anywhere.
        world: number of ranks of the run.
    """
    found = list(filter(None, (_in_group(name, records, world) for name in _groups(records))))
    differing = [one for one in found if one.kind == "differs"]
    if differing:
        return min(differing, key=lambda one: one.since)
    return _root(found, records)


def _groups(records: Mapping[int, Record]) -> list[Name]:
    return sorted({name for record in records.values() for name in record.tracks})


def _in_group(name: Name, records: Mapping[int, Record], world: int) -> Finding | None:
    """Return who is to blame for the first collective of a group that has not completed."""
    tracks = {rank: record.tracks[name] for rank, record in records.items() if name in record.tracks}
    number = min((min(track.pending) for track in tracks.values() if track.pending), default=None)
    if number is None:
        return None
    joined = {rank: track.calls[number] for rank, track in tracks.items() if number in track.calls}
    members = _members_of(name, records, world) or set(tracks)
    behind = {
        rank for rank in members if rank in records and (rank not in tracks or tracks[rank].last < number)
    }
    common = Counter(call.kind for call in joined.values()).most_common(1)[0][0]
    odd = {rank: call for rank, call in joined.items() if call.kind != common}
    same = {rank: call for rank, call in joined.items() if call.kind == common}
    if odd:
        made = _made((name, number), same, odd.keys())
        absent, instead = tuple(sorted(behind)), _described(odd, same)
        return replace(made, kind="differs", absent=absent, instead=instead)
    return _made((name, number), same, behind) if behind else None


def _members_of(name: Name, records: Mapping[int, Record], world: int) -> set[int]:
    """Return a group's ranks; gloo's records of torch 2.13 do not tell them."""
    told = next((record.members[name[0]] for record in records.values() if name[0] in record.members), ())
    return set(range(world)) if name[1] == _DEFAULT else set(told)


def _described(odd: Mapping[int, Call], same: Mapping[int, Call]) -> str:
    """Return where the odd ones are, with the sizes where only these are unlike."""
    call, other = next(iter(odd.values())), next(iter(same.values()))
    if call.op != other.op:
        return str(call)
    return f"{call} of {call.size:,} {call.dtype} (not {other.size:,} {other.dtype})"


def _made(which: tuple[Name, int], joined: Mapping[int, Call], culprits: Iterable[int]) -> Finding:
    (name, purpose), number = which
    first = min(joined.values(), key=lambda call: call.time)
    group = purpose if purpose not in {"", "undefined"} else name
    waiting, blamed = tuple(sorted(joined)), tuple(sorted(culprits))
    return Finding("behind", group, number, first.op, first.place, waiting, blamed, first.time)


def _root(found: Sequence[Finding], records: Mapping[int, Record]) -> Finding | None:
    """Return the finding whose culprits wait for nobody; else one of a circle of them."""
    blocked = {rank: one for one in reversed(found) for rank in one.waiting}
    waiting = blocked.keys() | {rank for rank, record in records.items() if record.waits}
    ordered = sorted(found, key=lambda one: one.since)
    for one in ordered:
        free = tuple(rank for rank in one.culprits if rank not in waiting)
        if free:
            return replace(one, culprits=free)
    for one in ordered:
        if all(rank in blocked for rank in one.culprits):
            return replace(one, kind="cycle", instead=blocked[one.culprits[0]].what)
    return None
