"""How a run spent its time: every second of it is of one kind. Values in, values out.

Goodput is the share of the time from submit to end that made steps whose result was kept. The kinds follow
"ML Productivity Goodput" (Google Cloud, 2024) and the accounts that MegaScale and Llama 3 give of their runs,
cut so that each can be seen from outside of a training script:

    productive   between the beginning of the first step and the report of the last
    checkpoint   what steps took longer than usual around a save, and a save after the last step
    startup      from submit to the first step, but for the queue
    restart      the same for a later attempt, and what lies between two
    queue        waiting for the scheduler to give hosts
    hang         from the last sign of life that a hang's ranks gave to its end
    lost         steps that were made again, or whose result nobody kept; a step that failed
    other        after the last step: evaluation, the end of ranks, what no line of the script explains
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_RESOLUTION = 0.25  # seconds to which the time of a line is known
_WINDOW = 10 * _RESOLUTION
KINDS = ("productive", "checkpoint", "startup", "restart", "queue", "hang", "lost", "other")


class Segment(NamedTuple):
    """A stretch of time of one kind (epoch seconds); what lies before an attempt belongs to it."""

    start: float
    end: float
    kind: str
    attempt: int


class Save(NamedTuple):
    """A checkpoint: when its first file came and when it was complete (epoch seconds), and its step."""

    began: float
    ended: float
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt.

    Attributes:
        began: epoch seconds at which its supervisor took it up.
        ended: epoch seconds of its verdict, or of now.
        times: epoch seconds of the reports of steps, rising.
        steps: their numbers, as many.
        resumed: the step that it went on from; None where nobody knows.
        failed: epoch seconds of the first failure; None where nothing failed.
        queued: a scheduler was asked for its hosts.
        running: it goes on: after the last report comes a step that nobody has seen the end of yet.
    """

    number: int
    began: float
    ended: float
    times: Sequence[float] = ()
    steps: Sequence[float] = ()
    resumed: float | None = None
    failed: float | None = None
    queued: bool = False
    running: bool = False


@dataclass(frozen=True, slots=True)
class Course:
    """What is known of a run's time.

    Attributes:
        created: epoch seconds of submit.
        ended: epoch seconds of its end, or of now.
        kept: all of the last attempt's work is kept: it succeeded or still runs, or saves itself elsewhere.
        hangs: beginning and end of each, epoch seconds.
        queued: a scheduler is asked for hosts; without any attempt, it has not given them.
    """

    created: float
    ended: float
    attempts: Sequence[Tried] = ()
    saves: Sequence[Save] = ()
    hangs: Sequence[tuple[float, float]] = ()
    kept: bool = True
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Goodput:
    """Seconds of each kind, which sum to `wall`; `share` is None where no step was ever reported."""

    wall: float
    seconds: Mapping[str, float]
    share: float | None
    segments: tuple[Segment, ...] = field(repr=False)


def account(course: Course) -> Goodput:
    """Return how a run spent its time."""
    segments = list(_whole(course))
    kept = _kept_from(course)
    spans: list[tuple[float, float]] = []
    for attempt in reversed(course.attempts):
        spans += _lost(attempt, kept)
        kept = min(kept, _first_step(attempt)) if attempt.times else kept
    saves = [span for attempt in course.attempts for span in _saving(attempt, course.saves)]
    segments = _overlay(segments, saves, "checkpoint", {"productive", "other"})
    segments = _overlay(segments, spans, "lost", {"productive", "other"})
    segments = _overlay(segments, course.hangs, "hang", {*KINDS} - {"queue"})
    return _summed(course, segments)


def _summed(course: Course, segments: list[Segment]) -> Goodput:
    seconds = dict.fromkeys(KINDS, 0.0)
    for segment in segments:
        seconds[segment.kind] += segment.end - segment.start
    wall = max(course.ended - course.created, 0.0)
    told = any(attempt.times for attempt in course.attempts)
    share = seconds["productive"] / wall if told and wall else None
    return Goodput(wall, seconds, share, tuple(segments))


def _whole(course: Course) -> Iterator[Segment]:
    """Yield segments from submit to end without a gap; each begins where the one before ended."""
    at = course.created
    for end, kind, number in _marks(course):
        until = min(max(end, at), course.ended)
        if until > at:
            yield Segment(at, until, kind, number)
        at = max(at, until)
    if course.ended > at:
        yield Segment(at, course.ended, "other", course.attempts[-1].number if course.attempts else 1)


def _marks(course: Course) -> Iterator[tuple[float, str, int]]:
    """Yield until when (epoch seconds) which kind lasts."""
    for place, attempt in enumerate(course.attempts):
        starting = "restart" if place else "startup"
        yield attempt.began, "queue" if attempt.queued else starting, attempt.number
        if attempt.times:
            yield _working_from(attempt), starting, attempt.number
            yield attempt.times[-1], "productive", attempt.number
        elif attempt.failed is not None:
            yield attempt.failed, starting, attempt.number
        yield attempt.ended, "productive" if attempt.running and attempt.times else "other", attempt.number
    if not course.attempts:
        yield course.ended, "queue" if course.queued else "startup", 1


def apart(times: Sequence[float], steps: Sequence[float], seconds: float) -> tuple[list[float], list[float]]:
    """Return those reports that are so many seconds apart, the first and the last among them.

    When a line came is known to a quarter of a second (agent/times.py): of shorter steps, several seem to be
    made at once.
    """
    kept = [0] if times else []
    for i, time in enumerate(times):
        if time - times[kept[-1]] >= seconds:
            kept.append(i)
    if len(kept) > 1 and kept[-1] != len(times) - 1:
        kept[-1] = len(times) - 1
    elif len(times) > 1 and len(kept) == 1:
        kept.append(len(times) - 1)
    return [times[i] for i in kept], [steps[i] for i in kept]


def _step_seconds(attempt: Tried) -> float:
    """Return how long a step usually takes, by the reports alone; 0 where too few were made."""
    times, steps = apart(attempt.times, attempt.steps, _WINDOW)
    gaps = [
        (after - before) / (to - since)
        for (before, after), (since, to) in zip(pairwise(times), pairwise(steps), strict=True)
        if to > since
    ]
    return statistics.median(gaps) if gaps else 0.0


def _first_step(attempt: Tried) -> float:
    """Return the number of steps that were made before this attempt."""
    if attempt.resumed is not None and attempt.resumed < attempt.steps[0]:
        return attempt.resumed
    return 0 if attempt.number == 1 and attempt.resumed is None else attempt.steps[0] - 1


def _working_from(attempt: Tried) -> float:
    """Return when the first step began: a script that reports every tenth has made ten by then.

    They are taken as long as steps usually are, so that what the first one takes to compile, to allocate and
    to connect is start-up.
    """
    made = max(attempt.steps[0] - _first_step(attempt), 1)
    return max(attempt.times[0] - made * _step_seconds(attempt), attempt.began)


def _kept_from(course: Course) -> float:
    """Return up to which step the work of the last attempt is kept."""
    if course.kept:
        return math.inf
    return max((_step_of(save, course.attempts) for save in course.saves), default=-math.inf)


def _step_of(save: Save, attempts: Iterable[Tried]) -> float:
    """Return a save's step: its own word, or the last that had been reported when it began."""
    if save.step is not None:
        return save.step
    found = -math.inf
    for attempt in attempts:
        before = bisect_right(attempt.times, save.began)
        found = attempt.steps[before - 1] if before else found
    return found


def _lost(attempt: Tried, kept: float) -> Iterator[tuple[float, float]]:
    """Yield what of an attempt's steps came after the last one that counts, and the step that failed."""
    if not attempt.times:
        return
    first = next((i for i, step in enumerate(attempt.steps) if step > kept), None)
    if first is not None:
        began = attempt.times[first - 1] if first else _working_from(attempt)
        yield began, attempt.times[-1]
    if attempt.failed is not None and attempt.failed > attempt.times[-1]:
        yield attempt.times[-1], attempt.failed


def _saving(attempt: Tried, saves: Iterable[Save]) -> Iterator[tuple[float, float]]:
    """Yield what saves cost an attempt.

    A save in the background costs what it slows the steps down by; one that stops them, all of its time. Both
    are the same here: by how much the steps around it took longer than steps do. So the clock of the file
    server, from which a save's times come, need not be right to the second.
    """
    usual = _step_seconds(attempt)
    for save in saves:
        if save.ended < attempt.began or save.began > attempt.ended:
            continue
        if not attempt.times or not usual:
            yield save.began, save.ended
            continue
        yield from _slower(attempt, save, usual)
        if save.ended > attempt.times[-1]:
            yield attempt.times[-1], save.ended


def _slower(attempt: Tried, save: Save, usual: float) -> Iterator[tuple[float, float]]:
    times, steps = apart(attempt.times, attempt.steps, 4 * _RESOLUTION)
    first = max(bisect_left(times, save.began) - 1, 0)
    last = min(bisect_right(times, save.ended), len(times) - 1)
    for i in range(first, last):
        excess = times[i + 1] - times[i] - max(steps[i + 1] - steps[i], 1) * usual
        if excess > max(usual / 4, _RESOLUTION):  # less is how steps differ anyway
            yield times[i + 1] - excess, times[i + 1]


def _overlay(
    segments: Iterable[Segment], spans: Iterable[tuple[float, float]], kind: str, over: set[str]
) -> list[Segment]:
    """Return the segments with the kind of `spans` where they lie over one of the kinds in `over`."""
    apart = _merged(spans)
    ends = [end for _, end in apart]
    found: list[Segment] = []
    for segment in segments:
        at = segment.start
        for start, end in apart[bisect_right(ends, at) :] if segment.kind in over else ():
            if start >= segment.end:
                break
            found += [segment._replace(start=at, end=start)] if start > at else []
            at, began = min(end, segment.end), max(start, at)
            found.append(Segment(began, at, kind, segment.attempt))
        found += [segment._replace(start=at)] if at < segment.end else []
    return found


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if end <= start:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
