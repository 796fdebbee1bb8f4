"""Read what c10d's flight recorder wrote of a rank.

Its form is that of torch/csrc/distributed/c10d/FlightRecorder*.hpp (version 2.10 in torch 2.13): a pickle of
dictionaries, lists, strings and numbers. The file comes from a rank, so nothing else is made of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import pickle
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.monitor.stacks import Frame, is_library

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Name = tuple[str, str]
"""A group's name and what it is for: `("0", "default_pg")`."""
_MOST = 64 << 20  # bytes of one file
_LAST = 256  # collectives that are looked at, and older ones that have not completed
_PEER = re.compile(r"^\w+:(send|recv) (\d+)(?:->|<-)(\d+)$")  # `nccl:send 0->1`, `nccl:recv 1<-0`
_SAME = frozenset({"all_reduce", "broadcast", "reduce", "all_gather_base", "reduce_scatter_base"})
"""Collectives to which every rank of a group brings as many numbers."""


class Call(NamedTuple):
    """One collective as one rank has joined it.

    Attributes:
        op: as `all_reduce`; several that were made as one are joined by `+`.
        size: numbers that the rank brings; -1 where ranks may bring unlike ones.
        dtype: of what.
        place: `train.py:57 step`, the user's own line; "" for one that no Python called (DDP's hooks).
        time: when the rank joined it, epoch seconds of its host.
    """

    op: str
    size: int
    dtype: str
    place: str
    time: float

    @property
    def kind(self) -> tuple[str, int, str]:
        """Return what must be the same for all ranks."""
        return self.op, self.size, self.dtype if self.size >= 0 else ""

    def __str__(self) -> str:
        return f"{self.op} ({self.place})" if self.place else self.op


@dataclass(slots=True)
class Track:
    """What one rank has done in one group.

    Attributes:
        calls: collectives by number, those that the recorder still holds.
        pending: numbers of those that have not completed.
        last: number of the last one joined; 0 for none.
    """

    calls: dict[int, Call] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    last: int = 0

    def add(self, number: int, call: Call, *, done: bool) -> None:
        """Take one entry in; entries of one number are parts of one collective."""
        before = self.calls.get(number)
        if before is not None:
            call = call._replace(op=f"{before.op}+{call.op}", size=-1, time=before.time)
        self.calls[number] = call
        self.last = max(self.last, number)
        if not done:
            self.pending.add(number)


@dataclass(slots=True)
class Record:
    """What one rank's recorder told.

    Attributes:
        tracks: by group.
        members: ranks of a group by its name, in the group's own order, where that is told.
        waits: ranks with which a send or a receive has not completed.
    """

    rank: int
    tracks: dict[Name, Track] = field(default_factory=dict)
    members: dict[str, tuple[int, ...]] = field(default_factory=dict)
    waits: tuple[int, ...] = ()

    def position(self) -> tuple[tuple[Name, int, int], ...]:
        """Return how far the rank is: the same as long as it joins and completes nothing."""
        return tuple((name, track.last, len(track.pending)) for name, track in sorted(self.tracks.items()))


class _Plain(pickle.Unpickler):
    """Makes containers, strings and numbers, and nothing that has a class."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"{pid!r} is no plain value")


def read(path: Path, rank: int) -> Record | None:
    """Return what a file tells of a rank; None where it is none of a recorder's, or not whole."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except OSError:
        return None
    document = _document(data) if len(data) <= _MOST else None
    if document is None:
        return None
    try:
        return _record(document, rank)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _document(data: bytes) -> dict[str, Any] | None:
    """Return the last document of a file; where the disk is not shared, a later one comes after the first."""
    if data.startswith(b"{"):
        with contextlib.suppress(ValueError):
            found = json.loads(data)
            return found if isinstance(found, dict) else None
        return None
    found, stream = None, io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            found = _Plain(stream).load()
        except Exception:  # noqa: BLE001 - pickle raises whatever it meets in bytes that are no pickle
            break
    return found if isinstance(found, dict) else None


def _record(document: dict[str, Any], rank: int) -> Record:
    record = Record(rank, members=_members(document))
    waits: set[int] = set()
    entries = document.get("entries") or []
    for index, entry in enumerate(entries, _LAST - len(entries)):
        done = _is_done(entry)
        if done and index < 0:
            continue
        name = _name(entry)
        peer = _PEER.match(str(entry["profiling_name"]))
        if peer is not None or entry.get("is_p2p"):
            waits |= set() if done or peer is None else _peer(peer, record.members.get(name[0], ()), rank)
            continue
        track = record.tracks.setdefault(name, Track())
        track.add(int(entry["collective_seq_id"]), _call(entry), done=done)
    record.waits = tuple(sorted(waits))
    return record


def _name(entry: dict[str, Any]) -> Name:
    name = entry["process_group"]
    return (str(name[0]), str(name[1])) if isinstance(name, (tuple, list)) else (str(name), "")


def _members(document: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, group in (document.get("pg_config") or {}).items():
        ranks = group.get("ranks") if isinstance(group, dict) else None
        listed = ranks if isinstance(ranks, str) else ""
        if numbers := re.findall(r"\d+", listed):
            found[str(name)] = tuple(map(int, numbers))
    return found


def _is_done(entry: dict[str, Any]) -> bool:
    """Tell whether a collective has completed.

    Of gloo's, torch 2.13 notes only that it looks after them no longer; one of NCCL's that it does not look
    after any longer and that has not completed has timed out.
    """
    gloo = str(entry["profiling_name"]).startswith("gloo:")
    return entry.get("state") == "completed" or (gloo and bool(entry.get("retired")))


def _peer(match: re.Match[str], members: tuple[int, ...], rank: int) -> set[int]:
    """Return with whom a send or a receive is; its numbers are those within the group."""
    pair = [int(match[2]), int(match[3])]
    ranks = [members[one] if one < len(members) else one for one in pair]
    return set(ranks) - {rank}


def _call(entry: dict[str, Any]) -> Call:
    op = str(entry["profiling_name"]).partition(":")[2].lstrip("_") or str(entry["profiling_name"])
    sizes, dtypes = entry.get("input_sizes") or [], entry.get("input_dtypes") or []
    size = sum(map(math.prod, sizes)) if op in _SAME else -1
    when = float(entry.get("time_created_ns") or 0) / 1e9
    return Call(op, size, str(dtypes[0]) if dtypes else "", _place(entry.get("frames") or ()), when)


def _place(frames: Iterable[dict[str, Any]]) -> str:
    """Return the innermost line that is the user's own; the innermost comes first."""
    own = (frame for frame in frames if not is_library(str(frame["filename"])))
    frame = next(own, None)
    if frame is None:
        return ""
    at = Frame(str(frame["filename"]), int(frame["line"]), str(frame["name"]))
    return str(at).removesuffix(" <module>")
