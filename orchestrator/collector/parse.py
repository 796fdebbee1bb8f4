"""What one line of a log tells of a training step: no file, no state.

Lines are the work of anybody's `print`, so nothing is certain. A line counts when it gives the number of a
step and at least one figure that is known by name (names.py), or begins with its step and has a figure
with a fraction. Read are, among others: `step 3/60 loss 2.31 tokens/s 4745`; Hugging Face's Trainer
(`{'loss': '2.31', 'epoch': …}`, which has no step: that is the bar's), tqdm's bars, with the values behind
them; DeepSpeed's engine (`step=10, skipped=0, lr=[…]`), its ThroughputTimer (`…/global_step=10,
…CurrSamplesPerSec=…`), its wall clock (`time (ms) | fwd: …`, utils/timer.py of 0.19.8) and its loss
scaler; Megatron-LM's `iteration 100/ 500 | lm loss: …`; JSON lines.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from orchestrator.collector.names import KNOWN, STEPS, figure, plain

NEEDLES = (b"oss", b"step", b"Step", b"it/s", b"s/it", b"iter")
"""A line without any of these tells nothing of a step; looked for in whole chunks before any line is read."""
_MOST_STEPS = 10**12
LONGEST = 2000  # bytes; no line that tells of a step is longer

_NUMBER = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"|nan|NaN|NAN|inf|Inf|INF|Infinity)"
)
_NAME = r"(?<![\w./-])[A-Za-z][\w./-]*+(?: ?\([\w/.]+\))?"  # possessive: a line may be one long word
_PAIR = re.compile(
    rf"(?P<many>{_NAME}(?: {_NAME}){{0,4}})['\"]?\s*+[:=]\s*+[\['\"(]*+(?P<one>{_NUMBER})(?P<u1>ms|s|%)?"
    rf"(?=[\s,;:|)\]}}'\"]|[A-Z]i?B|$)"
    rf"|(?P<word>{_NAME}(?: loss)?) +(?P<two>{_NUMBER})(?P<u2>ms|s|%)?(?=[\s,;:|)\]}}]|$)"
)
_STEP = re.compile(
    r"(?<![\w.-])(?:global[ _-]?step|step|iteration|iter|num_updates|batch)s?['\"]?\s*+[:=#]?\s*+[\[(]?\s*+"
    r"(?P<step>\d{1,3}(?:,\d{3})+|\d+)(?:\s*+/\s*+\d[\d,]*)?(?![\w.]*[\w%])(?! *(?:ms|s|seconds)\b)",
    re.IGNORECASE,
)
_BAR = re.compile(
    r"(?P<head>.*?)\s*(?:\d{1,3}%\|[^|]*\|\s*)?(?P<step>\d+)/(?P<total>\d+)\s*\[[\d:]+<[\d:?]*,\s*"
    r"(?P<rate>\d+(?:\.\d+)?|\?)\s*(?P<unit>it/s|s/it|steps?/s|s/step|batch/s|s/batch)(?P<rest>[^\]]*)\]"
)
_TRAINS = re.compile(r"$|epoch|train|step|iter|fit|\d", re.IGNORECASE)
_EVALUATES = re.compile(r"\b(?:eval\w*|val|valid\w*|test\w*|held-out)\b[^,|]*$", re.IGNORECASE)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_FIRST = re.compile(
    r"(?:\[[^\]]*\]\s*|\d[\d:.,T/-]*\s+|(?:INFO|DEBUG)\b[\s:|-]*|(?:eval|evaluation|val|train|training)\s"
    r"|\w++ - |[\s|>:*-]++)*+\Z"
)
_SUMMARY = ("train_runtime", "Traceback", 'File "')
_WALL = re.compile(r"(\w+): (\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Told:
    """What a line tells.

    Attributes:
        step: the step's number; None when the line has none.
        values: figures under the names of `metrics.jsonl`.
        total: of a progress bar, where it ends; None for other lines.
    """

    step: int | None
    values: dict[str, float] = field(default_factory=dict)
    total: int | None = None


def has_needle(data: bytes) -> bool:
    """Tell whether there may be a line in `data` that tells of a step."""
    return any(needle in data for needle in NEEDLES)


def parse(line: bytes) -> Told | None:
    """Return what a line tells of a step; None when it tells nothing.

    Args:
        line: without its end; colours and invalid UTF-8 do no harm.
    """
    if len(line) > LONGEST or not has_needle(line):
        return None
    try:
        told = _parsed(line.decode("utf-8", "replace").strip())
    except (ValueError, OverflowError, RecursionError):
        return None  # a number that Python's own limits refuse, JSON that is too deep: nothing of a step
    return told if told is None or told.step is None or told.step < _MOST_STEPS else None


def _parsed(text: str) -> Told | None:
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if text.startswith('{"'):
        return _json(text)
    if any(word in text for word in _SUMMARY):
        return None
    if "time (ms)" in text:
        return _wall(text)
    return _bar(text) or _words(text)


def _wall(text: str) -> Told | None:
    """Read DeepSpeed's wall clock: the line of a whole step, not those of its micro-steps."""
    values = {f"{name}_ms": float(value) for name, value in _WALL.findall(text)}
    return Told(None, values) if "step_ms" in values else None


def _json(text: str) -> Told | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    flat = _flat(found) if isinstance(found, dict) else {}
    values = dict(figure(name, value, "") for name, value in flat.items() if plain(name) not in STEPS)
    step = next((int(value) for name, value in flat.items() if plain(name) in STEPS and value >= 0), None)
    useful = step is not None and (set(KNOWN.values()) & set(values))
    return Told(step, values) if useful or "loss" in values else None


def _flat(found: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of an object and of the objects in it; the inner name alone is kept."""
    flat: dict[str, float] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            flat |= {key: inner for key, inner in _flat(value).items() if key not in flat}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = value
    return flat


def _bar(text: str) -> Told | None:
    match = _BAR.match(text) if "<" in text else None
    if match is None or not _TRAINS.match(match["head"].lstrip("\r ")):
        return None
    values = _figures(match["rest"].lstrip(", "))
    if match["rate"] != "?" and float(match["rate"]) > 0:
        rate = float(match["rate"])
        values.setdefault("step_time", rate if match["unit"].startswith("s/") else round(1 / rate, 6))
    return Told(int(match["step"]), values, int(match["total"]))


def _words(text: str) -> Told | None:
    """Read a line of `name value`, `name: value` or `name=value`."""
    if "OVERFLOW" in text:
        scale = re.search(r"reducing to (\d+)", text)
        return Told(None, {"loss_scale": float(scale[1])}) if scale else None
    match = _STEP.search(text)
    if match is None:
        values = _figures(text) if text.startswith("{'") else {}
        return Told(None, values) if {"loss", "eval_loss"} & set(values) else None
    before, after = text[: match.start()], text[match.end() :]
    first = _FIRST.match(before) is not None
    values = _figures(after) | {k: v for k, v in _figures(before).items() if k in _BEFORE}
    if _EVALUATES.search(before) and "loss" in values:
        values["eval_loss"] = values.pop("loss")
    if not set(values) & _TELLING and not (
        first and any(not v.is_integer() for v in values.values() if _finite(v))
    ):
        return None
    return Told(int(match["step"].replace(",", "")), values)


_TELLING = frozenset(KNOWN.values()) - {"epoch"}
_BEFORE = frozenset(KNOWN.values())
_finite = math.isfinite


def _figures(text: str) -> dict[str, float]:
    """Return the values of a line's pairs; the first of a name counts, and of a list the first element."""
    values: dict[str, float] = {}
    for match in _PAIR.finditer(text):
        raw = match["one"] or match["two"]
        name, value = figure(
            match["many"] or match["word"], float(raw.replace(",", "")), match["u1"] or match["u2"] or ""
        )
        if name and name not in STEPS:
            values.setdefault(name, value)
    return values
