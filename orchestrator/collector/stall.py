"""When a run goes no further although its ranks are busy: pure functions of what is known of them.

Ranks that wait for an NCCL collective use a whole core each, and so does one that loops: none is silent, and
`hang` has nothing to tell. So where no rank tells a step or writes to its log for clearly longer than usual,
all stacks and flight recorders are looked at, twice. It is a stall if some ranks stood in the same collective
both times, and none moved. Evaluations, checkpoints, compilation: there ranks move, nobody waits, or it does
not take longer than the longest time of that kind before.

A stall is told and never ended, but for one that cannot resolve: ranks that are in unlike collectives.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.monitor.flight import Finding, examine, named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from orchestrator.monitor.flight_file import Record
    from orchestrator.monitor.stacks import Place

_FACTOR = 3.0  # of what makes silent ranks hang: those of a stall may be at work
_USUAL = 1.5  # of the longest time without a sign so far
_MOVING = 3.0  # times as long while hosts move data: saving and loading take long
_GROUPS = 5  # places that are named
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


@dataclass(frozen=True)
class Look:
    """Where ranks stand at one time.

    Attributes:
        places: by rank; None where no stack could be had.
        records: of flight recorders, by rank.
    """

    places: Mapping[int, Place | None]
    records: Mapping[int, Record] = field(default_factory=dict)


@dataclass(frozen=True)
class Stall:
    """Ranks that wait for others, which do not come.

    Attributes:
        culprits: whom the others wait for; empty where nothing tells.
        waiting: ranks that stand in a collective.
        finding: what the flight recorders tell.
        proven: it cannot resolve.
    """

    culprits: tuple[int, ...]
    waiting: tuple[int, ...]
    finding: Finding | None = None
    proven: bool = False


def patience(after: float, longest: float, *, moving: bool) -> float:
    """Return the seconds without a sign after which ranks are looked at.

    Args:
        after: seconds of silence after which a rank may hang; more before the first step.
        longest: the longest time without a sign so far, seconds.
        moving: whether hosts move data.
    """
    return max(after * _FACTOR, longest * _USUAL) * (_MOVING if moving else 1.0)


def judge(first: Look, second: Look, world: int) -> Stall | None:
    """Return the stall that two looks show; None where ranks are at work.

    Args:
        first: where ranks stood.
        second: where they stand some seconds later.
        world: number of ranks of the run.
    """
    # A recorder's first file may come late: the symbols of its stacks take seconds, and need Python's lock.
    before, finding = examine({**second.records, **first.records}, world), examine(second.records, world)
    if finding is not None and before is not None and _same(before, finding):
        return _recorded(finding, second, world)
    if _moved(first, second):
        return None
    places = {rank: place for rank, place in second.places.items() if place is not None}
    recorded = second.records.keys() >= set(second.places)
    waiting = {rank for rank, place in places.items() if place.waiting and not (place.guessed and recorded)}
    still = {rank for rank in waiting if _stands(first.places.get(rank), places[rank])}
    rest = tuple(sorted(set(second.places) - waiting))
    if not still or still != waiting or (_all_guessed(places, waiting) and not 0 < len(rest) <= len(waiting)):
        return None
    odd = rest or _odd(places)
    others = tuple(sorted(waiting - set(odd)))
    return Stall(odd, others, None, proven=not rest and _unlike(places, world))


def _recorded(finding: Finding, look: Look, world: int) -> Stall:
    concerned = {*finding.waiting, *finding.culprits}
    stand = all((place := look.places.get(rank)) is not None and place.waiting for rank in concerned)
    complete = len(look.records) == world
    proven = finding.kind == "differs" or (finding.kind == "cycle" and stand and complete)
    return Stall(finding.culprits, finding.waiting, finding, proven)


def _same(before: Finding, now: Finding) -> bool:
    return (before.group, before.number, before.culprits) == (now.group, now.number, now.culprits)


def _moved(first: Look, second: Look) -> bool:
    """Tell whether a rank has joined or completed a collective, or one that waited stands elsewhere."""
    for rank, record in second.records.items():
        if rank in first.records and first.records[rank].position() != record.position():
            return True
    pairs = [(first.places.get(rank), place) for rank, place in second.places.items()]
    return any(a is not None and b is not None and a.waiting and not _stands(a, b) for a, b in pairs)


def _stands(before: Place | None, now: Place) -> bool:
    return before is not None and str(before) == str(now)


def _all_guessed(places: Mapping[int, Place], ranks: Iterable[int]) -> bool:
    return all(places[rank].guessed for rank in ranks)


def _odd(places: Mapping[int, Place]) -> tuple[int, ...]:
    """Return the ranks that wait elsewhere than most; none where there are no most."""
    by_place = defaultdict(list)
    for rank, place in sorted(places.items()):
        by_place[place.collective, str(place)].append(rank)
    sizes = sorted(map(len, by_place.values()))
    if len(sizes) < 2 or sizes[-1] == sizes[-2]:
        return ()
    return tuple(sorted(rank for ranks in by_place.values() if len(ranks) < sizes[-1] for rank in ranks))


def _unlike(places: Mapping[int, Place], world: int) -> bool:
    """Tell whether every rank of the run is in a collective, and not all in the same."""
    sure = [place.collective for place in places.values() if place.waiting and not place.guessed]
    return len(sure) == world and "" not in sure and len(set(sure)) > 1


def describe(stall: Stall, look: Look, seconds: float, usual: float | None) -> str:
    """Return the stall in one sentence: how long, who waits where, who is elsewhere.

    Args:
        stall: what was found.
        look: where ranks stand.
        seconds: for how long no rank has given a sign.
        usual: what a step usually takes, seconds; None for a run that tells of none.
    """
    what = "no line of log" if usual is None else "no step"
    often = "" if usual is None else f" (usually {span(usual)})"
    places = "; ".join(
        filter(None, (_stand(stall.waiting, look.places), _stand(stall.culprits, look.places, "is", "are")))
    )
    told = "" if stall.finding is None else f"; {stall.finding.words}"
    return f"{what} for {span(seconds)}{often}: {places or named((*stall.waiting, *stall.culprits))}{told}"


def _stand(
    ranks: Collection[int], places: Mapping[int, Place | None], one: str = "waits", many: str = "wait"
) -> str:
    by_place: dict[str, list[int]] = defaultdict(list)
    for rank in sorted(ranks):
        if (place := places.get(rank)) is not None:
            by_place[_in(place)].append(rank)
    groups = sorted(by_place.items(), key=lambda item: -len(item[1]))
    told = [f"{named(of)} {one if len(of) == 1 else many} {place}" for place, of in groups[:_GROUPS]]
    more = sum(len(of) for _, of in groups[_GROUPS:])
    return ", ".join([*told, *([f"{more} more elsewhere"] if more else [])])


def _in(place: Place) -> str:
    line = f"{place.file.rpartition('/')[2]}:{place.line}"
    function = place.collective or place.function.removeprefix("<module>")
    return f"in {function} ({line})" if function else f"at {line}"


def span(seconds: float) -> str:
    """Return a time as `14 min`, `2 s`, `1.5 h`."""
    for size, unit in _UNITS:
        if seconds >= size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 or unit == "min" else f"{value:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2g} s"
