"""How the time was spent, as bars: for a whole run, and for each attempt along the time since submit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.report.units import elapsed, lasted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS = {
    "productive": ("productive", "steps whose result was kept"),
    "checkpoint": ("checkpoint", "what saving added to the steps"),
    "startup": ("startup", "from having hosts to the first step"),
    "restart": ("restart", "the same for a later attempt"),
    "queue": ("queue", "waiting for hosts"),
    "hang": ("hang", "ranks that gave no sign of life"),
    "lost": ("lost", "steps made again, or never kept"),
    "other": ("other", "after the last step"),
}
_NARROWEST = 1 / 1500  # of the width: less is no pixel
_MOST_MARKS = 160
_SHOWN = {
    "checkpoint": ("◆", "good"),
    "hang": ("▲", "bad"),
    "straggler": ("▲", "mark"),
    "gpu_fault": ("✕", "bad"),
    "oom_kill": ("✕", "bad"),
    "host_failed": ("✕", "bad"),
    "interruption": ("⇥", "mark"),
}


def shares(goodput: dict[str, Any]) -> list[dict[str, Any]]:
    """Return kind, width (percent), time and share of each kind that took any."""
    wall = goodput["wall"] or 1.0
    return [
        {
            "kind": kind,
            "name": WORDS[kind][0],
            "words": WORDS[kind][1],
            "width": round(100 * seconds / wall, 3),
            "time": lasted(seconds),
            "share": _percent(seconds / wall),
        }
        for kind, seconds in goodput["seconds"].items()
        if seconds > 0
    ]


def _percent(share: float) -> str:
    if share >= 0.9995:
        return "100 %"
    return (
        f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"
    )


def lanes(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each attempt its bar and its marks, along the time from submit to end (percent)."""
    begin, wall = document["created"], document["goodput"]["wall"] or 1.0
    segments = document["goodput"]["segments"]
    found = []
    for attempt in document["attempts"]:
        own = [segment for segment in segments if segment[3] == attempt["attempt"]]
        found.append(
            {
                "attempt": attempt,
                "name": f"attempt {attempt['attempt']}",
                "pieces": [_piece(segment, begin, wall) for segment in _joined(own, wall * _NARROWEST)],
                "marks": list(_marks(document, attempt, begin, wall)),
                "steps": _steps(attempt),
            }
        )
    return found


_KEY = (
    ("◆", "good", "checkpoint"),
    ("✕", "bad", "failure"),
    ("▲", "bad", "hang"),
    ("▲", "mark", "slow host"),
    ("⇥", "mark", "interrupted by the scheduler"),
)


def key(shown: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return sign, tone and meaning of the marks that are on these lanes."""
    there = {(mark["sign"], mark["tone"]) for lane in shown for mark in lane["marks"]}
    return [one for one in _KEY if one[:2] in there]


def _joined(segments: Iterable[Sequence[Any]], narrow: float) -> list[list[Any]]:
    """Return segments of which none is too narrow to be seen: it goes to the one before it."""
    found: list[list[Any]] = []
    for segment in segments:
        start, end, kind = segment[0], segment[1], segment[2]
        if found and (kind == found[-1][2] or end - start < narrow) and abs(found[-1][1] - start) < narrow:
            found[-1][1] = end
        else:
            found.append([start, end, kind])
    return found


def _piece(segment: list[Any], begin: float, wall: float) -> dict[str, Any]:
    start, end, kind = segment
    return {
        "kind": kind,
        "left": round(100 * (start - begin) / wall, 3),
        "width": round(100 * (end - start) / wall, 3),
        "words": f"{WORDS[kind][0]}, {lasted(end - start)}, from {elapsed(start - begin)} on",
    }


def _marks(
    document: dict[str, Any], attempt: dict[str, Any], begin: float, wall: float
) -> Iterable[dict[str, Any]]:
    here = [
        event
        for event in document["events"]
        if event["kind"] in _SHOWN and attempt["began"] <= event["time"] <= attempt["ended"]
    ]
    saves = [event for event in here if event["kind"] == "checkpoint"]
    every = len(saves) // _MOST_MARKS + 1
    others = [event for event in here if event["kind"] != "checkpoint"][:_MOST_MARKS]
    for event in sorted([*saves[::-every], *others], key=lambda one: float(one["time"])):
        sign, tone = _SHOWN[event["kind"]]
        yield _mark((sign, event.get("mark") or tone), event["words"], event["time"] - begin, wall)
    first = document["verdict"].get("time")
    if first and attempt is document["attempts"][-1]:
        words = document["verdict"].get("summary") or "failed"
        yield _mark(("✕", "bad"), words, first - begin, wall)


def _mark(shown: tuple[str, str], words: str, since: float, wall: float) -> dict[str, Any]:
    left = round(min(max(100 * since / wall, 0.0), 100.0), 3)
    return {"sign": shown[0], "tone": shown[1], "left": left, "words": f"{elapsed(since)}: {words}"[:300]}


def _steps(attempt: dict[str, Any]) -> str:
    if attempt["first_step"] is None:
        return "no step"
    return f"steps {attempt['first_step']:,.0f} to {attempt['last_step']:,.0f}"
