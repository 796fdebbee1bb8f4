"""What `events.jsonl` and a host's samples tell that bears on a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.diagnose.text import Line, Text
from orchestrator.monitor.records import parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Only lines with one of these are parsed: a run of thousands of ranks has tens of thousands of others.
_WANTED = {
    *("attempt", "hang", "hang_over", "stall", "stall_over", "gpu_fault", "oom_kill", "interruption"),
    *("straggler", "straggler_over", "command_exit", "retry", "requeue", "ending"),
}
_NEEDLES = tuple(f'"{name}"'.encode() for name in sorted(_WANTED))
_BEFORE, _AFTER = 120.0, 60.0  # seconds around a failure in which a fault of its host may be its reason
_UNNAMED = 10.0  # the same, for a process that the kernel ended and that no rank is known to own
_SAMPLES_TAIL = 256 << 10  # bytes


class Event(NamedTuple):
    """One event and the line of `events.jsonl` that holds it."""

    line: int
    data: dict[str, Any]


def read_events(path: Path, attempt: int | None) -> tuple[Event, ...]:
    """Return the events that matter, from the beginning of an attempt to that of the next."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return ()
    found: list[Event] = []
    current = 1
    for number, raw in enumerate(lines, 1):
        data = parsed(raw) if any(needle in raw for needle in _NEEDLES) else None
        if data is None or data.get("event") not in _WANTED:
            continue
        if data["event"] == "attempt":
            current = int(data.get("attempt", current))
        if attempt in (None, current):
            found.append(Event(number, data))
    return tuple(found)


def standing_hang(events: Sequence[Event]) -> Event | None:
    """Return the last hang, or stall, that was not over when the attempt ended."""
    hang = None
    for event in events:
        if event.data["event"] in {"hang", "stall"}:
            hang = event
        elif event.data["event"] in {"hang_over", "stall_over"}:
            hang = None
    return hang


def standing_stragglers(events: Sequence[Event]) -> tuple[Event, ...]:
    """Return for each host that is slower than the others by some measure the last that was told of it."""
    slow: dict[tuple[str, str], Event] = {}
    for event in events:
        key = (str(event.data.get("host")), str(event.data.get("what")))
        if event.data["event"] == "straggler":
            slow[key] = event
        elif event.data["event"] == "straggler_over":
            slow.pop(key, None)
    return tuple(slow.values())


def faults_text(events: Sequence[Event], host: str, rank: int | None, time: float | None) -> Text:
    """Return what is known of a host's own faults around a time: the kernel's kills, faults of GPUs."""
    lines = [
        Line(_words(event.data), event.line)
        for event in events
        if _concerns(event.data, host, rank) and _is_near(event.data, event.data.get("time"), time)
    ]
    return Text("event", "events.jsonl", tuple(line for line in lines if line.text))


def _concerns(event: dict[str, Any], host: str, rank: int | None) -> bool:
    """Tell whether an event is a fault of a host that may have hit a rank; some name the rank they hit."""
    here = event["event"] in {"oom_kill", "gpu_fault"} and str(event.get("host")) == host
    return here and event.get("rank") in {None, rank}


def _is_near(fault: dict[str, Any], when: Any, time: float | None) -> bool:
    """Tell whether a fault came when it may be the reason.

    Agents name the rank of a process that the kernel ended. Without one it is most often somebody else's, of
    another job on this host, but for one in a container (its number is another there) or a young child.
    """
    if time is None or not isinstance(when, int | float):
        return True
    if "rank" not in fault and "oom_kill" in {fault.get("event"), fault.get("what")}:
        return abs(float(when) - time) <= _UNNAMED
    return time - _BEFORE <= float(when) <= time + _AFTER


def _words(event: dict[str, Any]) -> str:
    said = str(event.get("text", ""))
    if event["event"] == "oom_kill":
        return f"oom_kill: {said}"
    if event["event"] == "gpu_fault":
        code = "" if event.get("code") is None else f" {event['code']}"
        return f"gpu_fault: {event.get('what', 'fault')}{code} on GPU {event.get('gpu', '?')}: {said}"
    return ""


def sampled_faults(path: Path, base: Path, rank: int | None, time: float | None, offset: float) -> Text:
    """Return the faults in the end of a host's samples, where the collector has made no events of them.

    Args:
        path: `HOST.samples`; its times are the host's clock.
        base: the run directory.
        rank: whose failure it is; None for the host's.
        time: of the failure, supervisor's clock.
        offset: host's clock minus the supervisor's, seconds.
    """
    lines = [
        Line(_fault_words(fault))
        for sample in _last_samples(path)
        for fault in sample.get("faults") or ()
        if isinstance(fault, dict)
        and fault.get("rank") in {None, rank}
        and _is_near(fault, sample.get("time"), None if time is None else time + offset)
    ]
    return Text("event", str(path.relative_to(base)), tuple(lines))


def _last_samples(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _SAMPLES_TAIL))
            data = file.read()
    except OSError:
        return
    for raw in data.split(b"\n"):
        value = parsed(raw) if b'"faults"' in raw else None
        if value is not None:
            yield value


def _fault_words(fault: dict[str, Any]) -> str:
    known = "oom_kill" if fault.get("what") == "oom_kill" else "gpu_fault"
    return _words(fault | {"event": known})
