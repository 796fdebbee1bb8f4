"""What a notification says: a subject, some lines, and the same as values for programs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REACHED = ("step", "loss", "tokens_per_second")
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ADVICE = 2  # pieces of advice; `orchestrate diagnose` has them all
_LONGEST = 600  # characters of a line: a rank's last words may be a page


@dataclass(frozen=True)
class Facts:
    """What is known of a run when it is told of.

    Attributes:
        run_id: the run.
        name: the job's name.
        run_dir: where everything of it is.
        host: the machine that directory was made on.
        shape: what runs, such as `64 ranks on 8 hosts (slurm)`.
        state: what it is doing, or how it ended.
        reason: that in a sentence: the diagnosis where there is one, else the verdict.
        category: what kind of failure it was; "" where that is not known.
        advice: what to try.
        seconds: since it began; None where it never did.
        progress: the last step and what was told of it, as `monitor.progress` has it.
    """

    run_id: str
    name: str
    run_dir: str
    host: str
    shape: str
    state: str
    reason: str = ""
    category: str = ""
    advice: tuple[str, ...] = ()
    seconds: float | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One notification.

    Attributes:
        event: the occasion: one of job.notify_spec.OCCASIONS, or test.
        subject: one line.
        text: some lines, the subject not among them.
        values: the same for programs.
    """

    event: str
    subject: str
    text: str
    values: dict[str, Any]


def make_message(event: str, facts: Facts) -> Message:
    """Write the notification of one occasion."""
    head = _WORDS.get(event, "{state}").format(state=facts.state)
    after = "" if facts.seconds is None or event in ("start", "test") else f" after {duration(facts.seconds)}"
    subject = f"{facts.run_id} {head}{after}"
    lines = [short(line) for line in _lines(facts)]
    values = {
        "event": event,
        "run_id": facts.run_id,
        "name": facts.name,
        "state": facts.state,
        "reason": short(facts.reason),
        "category": facts.category,
        "advice": list(facts.advice),
        "seconds": facts.seconds,
        **{
            key: facts.progress[key] for key in ("step", "loss", "tokens_per_second") if key in facts.progress
        },
        "shape": facts.shape,
        "run_dir": facts.run_dir,
        "host": facts.host,
    }
    return Message(event, subject, "\n".join(lines), values)


_WORDS = {
    "start": "is running",
    "restart": "runs again",
    "hang": "hangs",
    "straggler": "is held up",
    "fault": "has a fault",
    "test": "tries its notifications",
}


def _lines(facts: Facts) -> Iterator[str]:
    if facts.reason:
        yield facts.reason
    for advice in facts.advice[:_ADVICE]:
        yield f"try: {advice}"
    reached = reached_words(facts.progress)
    yield ", ".join(filter(None, [reached, facts.shape]))
    if facts.state in _BAD:
        yield f"more: orchestrate diagnose {facts.run_id}"
    yield f"on {facts.host}: {facts.run_dir}"


_BAD = {State.FAILED, State.TIMEOUT, State.LOST, State.PREEMPTED}


def reached_words(progress: Mapping[str, Any]) -> str:
    """Return `step 412, loss 2.134, 8123 tokens/s`; "" without a step."""
    if "step" not in progress:
        return ""
    parts = [f"step {progress['step']}"]
    if "loss" in progress:
        parts.append(f"loss {number_words(progress['loss'])}")
    if "tokens_per_second" in progress:
        parts.append(f"{number_words(progress['tokens_per_second'])} tokens/s")
    return ", ".join(parts)


def number_words(value: Any) -> str:
    """Return a figure with four digits, "NaN" and "Infinity" too; "" for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def duration(seconds: float) -> str:
    """Return a time in two units at most: 42 s, 3 min 10 s, 2 h 13 min, 3 d 4 h."""
    whole = max(0, round(seconds))
    for size, unit, smaller, small_unit in _UNITS:
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small_unit}" if rest else "")
    return f"{whole} s"


def short(line: str) -> str:
    """Return a line that every way takes: without colours, control and half characters, and not too long."""
    plain = "".join(each if each.isprintable() else " " for each in _COLOUR.sub("", line))
    one = " ".join(plain.split())
    return one if len(one) <= _LONGEST else f"{one[: _LONGEST - 1]}…"
