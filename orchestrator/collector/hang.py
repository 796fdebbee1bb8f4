"""When ranks hang: pure functions of what is known of each.

A rank is silent when it has written no byte, told no step and used no CPU for a time (5 % of a core is
none: Python's idle threads need that), and its host has moved no data either: who saves to a slow disk or
loads over the network sleeps most of the time. Its silence lasts until it was measured last, since nobody
knows what it did after that; a rank whose measurements have stopped coming is not silent but unknown.

That some ranks are silent is not yet a hang. When a step was told lately, nobody waits for them. When
others are at work, the silent ones may be waiting for them: rank 0 tokenizes, the rest stands in a
barrier. With NCCL those who wait spin, with gloo they sleep, so only their stacks can tell (`judge`): a
rank that is at work outside of torch.distributed means no hang; a silent one that stands outside of it is
stuck. Without stacks, the silent ones are called stuck when they are no more than those that spin, or when
all are silent. They are told then; but no run is ended while others, of whom no stack shows that they wait
in a collective, may be at work (supervisor/watching.py).

Until the first step, ranks import, load, compile: `auto` waits five times as long for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from orchestrator.monitor.stacks import Place

IDLE = 0.05  # cores
MOVING = 1e6  # bytes a second, of disk and network of a host
START = 5.0  # times as long until the first step
_SHORTEST, _STEPS = 120.0, 5.0


@dataclass(slots=True)
class Rank:
    """What is known of one rank that runs; times are epoch seconds.

    Attributes:
        active: when it last did anything that can be seen: bytes, a step, CPU, its host's data.
        known: whether measurements of it are coming.
        measured: when the last one came.
    """

    rank: int
    host: str
    active: float
    known: bool
    measured: float


@dataclass(frozen=True, slots=True)
class Silence:
    """Ranks that may hang.

    Attributes:
        silent: those that do nothing, the longest silent first.
        others: those that do something.
        since: when the first fell silent, epoch seconds.
    """

    silent: tuple[int, ...]
    others: tuple[int, ...]
    since: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Who is stuck, and who waits for them."""

    stuck: tuple[int, ...]
    waiting: tuple[int, ...]


def patience(
    after: float | str, step_times: Sequence[float], interval: float, *, stepped: bool
) -> float | None:
    """Return the seconds of silence after which ranks may hang; None when nobody wants to know.

    Args:
        after: `monitor.hang.after`: seconds, `auto` or `never`.
        step_times: the last steps' times, seconds.
        interval: seconds between two measurements: two of them must have shown no CPU.
        stepped: whether the run has told of a step.
    """
    if after == "never":
        return None
    wanted = _automatic(step_times, stepped=stepped) if isinstance(after, str) else after
    return max(wanted, 2 * interval)


def _automatic(step_times: Sequence[float], *, stepped: bool) -> float:
    if not stepped:
        return _SHORTEST * START
    ordered = sorted(step_times)
    longest = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0
    return max(_SHORTEST, _STEPS * longest)


def silence(ranks: Iterable[Rank], stepped_at: float, now: float, after: float) -> Silence | None:
    """Return which ranks are silent while the run goes no further; None when none may hang.

    Args:
        ranks: those that run.
        stepped_at: when any rank last told of a step, epoch seconds; 0.0 when none has.
        now: epoch seconds.
        after: seconds of silence.
    """
    all_ranks = list(ranks)
    if now - stepped_at < after or not all(rank.known for rank in all_ranks):
        return None
    quiet = (rank for rank in all_ranks if min(now, rank.measured) - rank.active >= after)
    silent = sorted(quiet, key=lambda rank: (rank.active, rank.rank))
    if not silent:
        return None
    gone = {rank.rank for rank in silent}
    others = tuple(sorted(rank.rank for rank in all_ranks if rank.rank not in gone))
    return Silence(tuple(rank.rank for rank in silent), others, silent[0].active)


def judge(silent: Sequence[int], others: Sequence[int], places: Mapping[int, Place | None]) -> Hang | None:
    """Return who is stuck, from where ranks stand; None when somebody is at work.

    Args:
        silent: ranks that do nothing.
        others: ranks that do something.
        places: where a rank stands; absent or None where no stack could be had.
    """
    stands = {rank: place for rank, place in places.items() if place is not None}
    if any(rank in stands and not stands[rank].waiting for rank in others):
        return None
    stuck = [rank for rank in silent if rank in stands and not stands[rank].waiting]
    if not stuck and stands.keys() >= set(silent):
        stuck = _odd_ones(silent, others, stands)
    elif not stuck:
        unseen = [rank for rank in silent if rank not in stands]
        if others and len(unseen) > len(others):
            return None
        stuck = unseen
    rest = [rank for rank in (*silent, *others) if rank not in set(stuck)]
    return Hang(tuple(sorted(stuck)), tuple(sorted(rest)))


def _odd_ones(silent: Sequence[int], others: Sequence[int], stands: Mapping[int, Place]) -> list[int]:
    """Return those that wait elsewhere than most: ranks that took another way to a collective."""
    where = {rank: (place.file, place.line, place.function) for rank, place in stands.items()}
    counts = Counter(where.values()).most_common()
    if len(counts) == 1 or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return list(silent)
    return [rank for rank in (*silent, *others) if rank in where and where[rank] != counts[0][0]]
