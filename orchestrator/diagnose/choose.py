"""Decide which kind of failure it is: by state, hang, patterns in what was said, and how it ended. Pure."""

from __future__ import annotations

import re
import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.diagnose.events import Event, standing_hang, standing_stragglers
from orchestrator.diagnose.text import Line, Text, is_exception
from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.diagnose.gather import Case
    from orchestrator.diagnose.model import Suspect
    from orchestrator.diagnose.patterns import Book, Pattern
    from orchestrator.monitor.flight import Finding

BY_STATE = {State.CANCELLED: "cancelled", State.TIMEOUT: "time_limit", State.PREEMPTED: "preempted"}
OWN_WORDS = ("message", "raised")
_OUTSIDE_KILL = frozenset({"host_oom", "gpu_fault", "preempted", "time_limit", "cancelled"})
TIMED_OUT = frozenset({"collective_timeout", "hang"})
_OF_GPUS = re.compile(r"CUDA|NCCL|cuda|nccl|cuBLAS|CUBLAS")
_UNDER_NCCL = frozenset({"cuda_oom", "shared_memory", "wrong_interface", "gpu_fault", "disk_full"})
_FULL = 0.95  # of a host's memory
_NO_PLACE = 16 << 20  # bytes free on a disk, measured some seconds before
_KILLED = (128 + signal.SIGKILL,)


@dataclass(frozen=True, slots=True)
class Found:
    """What decided.

    Attributes:
        category: an id of patterns.yaml.
        pattern: the pattern that was found, if one was.
        words: its named groups.
        text, line: where it was found.
        hang: the hang that the failure is.
        flight: what flight recorders tell of ranks that waited for others.
    """

    category: str
    pattern: Pattern | None = None
    words: dict[str, str] | None = None
    text: Text | None = None
    line: Line | None = None
    hang: Event | None = None
    flight: Finding | None = None


def choose(case: Case, book: Book) -> Found:
    """Return the kind of failure; category "" for a run that goes on or went well."""
    state = State(case.state) if case.state in State.__members__ else State.UNKNOWN
    hang = standing_hang(case.events)
    if state in BY_STATE:
        return _of_state(case, book, state)
    if not state.is_final or state is State.SUCCEEDED:
        return _going_on(case, hang) if not state.is_final else _well(case)
    found = _of_suspects(case, book) if case.suspects else _of_summary(case, book, state)
    if hang is not None and (found.category in {*TIMED_OUT, "unknown"} or not case.suspects):
        return Found("hang", found.pattern, found.words, found.text, found.line, hang)
    return found


def _of_state(case: Case, book: Book, state: State) -> Found:
    """Return what the state says, with the words of Slurm that say more."""
    category = BY_STATE[state]
    allowed = [pattern for pattern in book.patterns if pattern.category == category]
    return _search(case.common, allowed) or Found(category)


def _going_on(case: Case, hang: Event | None) -> Found:
    """Return what is wrong with a run that goes on: ranks hang, or a host is slower than the others."""
    if hang is not None:
        return Found("hang", hang=hang)
    slow = standing_stragglers(case.events)
    if not slow:
        return _well(case)
    lines = tuple(Line(str(event.data.get("words", "")), event.line) for event in slow)
    return Found("straggler", text=Text("event", "events.jsonl", lines), line=lines[0])


def _well(case: Case) -> Found:
    """Return nothing, but for a run that learns nothing any more: its loss is no number."""
    loss = str(case.last_step.get("loss", "")).lower()
    return Found("nan_loss") if loss in {"nan", "infinity", "-infinity"} else Found("")


def _of_summary(case: Case, book: Book, state: State) -> Found:
    """Return what is to be learnt where no rank and no host is to blame."""
    found = _search(case.common, _strong(book.patterns, "cause")) or _search(case.common, book.patterns)
    return found or Found("lost" if state is State.LOST else "unknown")


def _of_suspects(case: Case, book: Book) -> Found:
    """Return what most of the suspects say; one that tells a cause counts before those that lost a peer."""
    pairs = zip(case.suspects, case.texts, strict=False)
    found = [_of_suspect(one, (*texts, *case.common), book) for one, texts in pairs]
    found = [
        _with_disk(case, one, _with_memory(case, one, what))
        for one, what in zip(case.suspects, found, strict=False)
    ]
    sure = [one for one in found if one.pattern is None or one.pattern.strength != "symptom"] or found
    if not sure:
        return Found("unknown")
    most = Counter(one.category for one in sure).most_common(1)[0][0]
    return next(one for one in sure if one.category == most)


def _with_memory(case: Case, suspect: Suspect, found: Found) -> Found:
    """Return what it is when SIGKILL came while the host's memory was full, which few kernels tell users."""
    if found.category != "killed" or suspect.signal != signal.SIGKILL:
        return found
    used = case.memory_used(suspect)
    return Found("host_oom") if used is not None and used >= _FULL else found


def _with_disk(case: Case, suspect: Suspect, found: Found) -> Found:
    """Return what it is when a rank ended without a word while the disk of its logs was full.

    Its traceback had no place there either.
    """
    left = case.disk_left(suspect) if found.category == "exit_code" and suspect.rank is not None else None
    if left is None or left >= _NO_PLACE:
        return found
    line = Line(f"{suspect.host} had {left / 2**20:.1f} MiB left on the disk of the run's files")
    return Found("disk_full", text=Text("event", "metrics.jsonl", (line,)), line=line)


def _of_suspect(suspect: Suspect, texts: tuple[Text, ...], book: Book) -> Found:
    users = [pattern for pattern in book.patterns if pattern.users]
    return _search(texts, users, last=True) or _by_our_patterns(suspect, texts, book)


def _by_our_patterns(suspect: Suspect, texts: tuple[Text, ...], book: Book) -> Found:
    by_kill = suspect.signal == signal.SIGKILL or suspect.exit_code in _KILLED
    if by_kill and suspect.rank is not None:
        return _killed(suspect, texts, book)
    own = [text for text in texts if text.kind in OWN_WORDS]
    others = [text for text in texts if text.kind not in OWN_WORDS]
    faults = [text for text in others if text.kind == "event"]
    found = _search(own, _strong(book.patterns, "cause"))
    if (found is None or found.category != "cuda_oom") and any(_OF_GPUS.search(text.joined) for text in own):
        fault = _search(faults, _of_category(book, "gpu_fault"))  # what it was that CUDA or NCCL met
        found = fault or found
    if found is not None and found.category == "nccl_error":
        return (
            _search(texts, [one for one in book.patterns if one.category in _UNDER_NCCL], last=True) or found
        )
    if found is not None:
        return found
    return _less_sure(suspect, own, others, book)


def _less_sure(suspect: Suspect, own: list[Text], others: list[Text], book: Book) -> Found:
    """Return the best that is to be had where the rank's own words name no cause."""
    likely, symptoms = _strong(book.patterns, "likely"), _strong(book.patterns, "symptom")
    tells = any(is_exception(text.joined) for text in own if text.kind == "message")
    lost_a_peer = _search(own, symptoms)
    if tells and lost_a_peer is None and (found := _first_pattern(own, likely)):
        return found
    return (
        _search(others, _strong(book.patterns, "cause"), last=True)
        or (None if lost_a_peer else _first_pattern(own, likely) or _search(others, likely, last=True))
        or lost_a_peer
        or (None if _has_words(own) else _search(others, symptoms, last=True))
        or _by_ending(suspect, said=_has_words(own))
    )


def _has_words(own: Iterable[Text]) -> bool:
    """Tell whether a rank said why it ended: that others then lost it, as they say nearby, is no reason."""
    return any(text.kind == "message" and text.lines for text in own)


def _killed(suspect: Suspect, texts: tuple[Text, ...], book: Book) -> Found:
    """Return who sent SIGKILL, where anything tells: what the rank said last is then no reason."""
    allowed = [pattern for pattern in book.patterns if pattern.category in _OUTSIDE_KILL]
    outside = [text for text in texts if text.kind in {"event", "launcher", "summary", "host"}]
    return _search(outside, allowed, last=True) or _by_ending(suspect)


def _by_ending(suspect: Suspect, *, said: bool = False) -> Found:
    code = suspect.exit_code or 0
    if suspect.rank is None and not suspect.signal:
        return Found("host_failed")
    if suspect.signal or code > 128:
        return Found("killed")
    return Found("unknown" if said else "exit_code")


def _strong(patterns: Iterable[Pattern], strength: str) -> list[Pattern]:
    return [pattern for pattern in patterns if pattern.strength == strength]


def _of_category(book: Book, category: str) -> list[Pattern]:
    return [pattern for pattern in book.patterns if pattern.category == category]


def _first_pattern(texts: Iterable[Text], patterns: Iterable[Pattern]) -> Found | None:
    """Return the first pattern found in any text: where a traceback leads tells more than its end."""
    texts = list(texts)
    return next(filter(None, (_search(texts, [pattern]) for pattern in patterns)), None)


def _search(texts: Iterable[Text], patterns: Iterable[Pattern], *, last: bool = False) -> Found | None:
    """Return the first pattern that is found, text by text; in a log, its last place."""
    patterns = list(patterns)
    for text in texts:
        for pattern in patterns if text.lines else ():
            if text.kind not in pattern.where:
                continue
            matches = pattern.match.finditer(text.joined)
            match = next(matches, None)
            for later in matches if last else ():
                match = later
            if match is not None:
                words = {name: value.strip() for name, value in match.groupdict().items() if value}
                return Found(pattern.category, pattern, words, text, text.line_at(match.start()))
    return None
