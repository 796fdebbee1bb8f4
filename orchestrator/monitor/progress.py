"""How far a run has come: its last step, and what was told of it, read from the end of `metrics.jsonl`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from orchestrator.rundir import RunDir

FIGURES = ("loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second", "samples_per_second",
           "step_time", "tflops", "mfu", "epoch")  # fmt: skip
_BLOCK = 1 << 18
_MOST = 8 << 20  # bytes from the end; the samples of 1,000 hosts are 2 MB a round
_ENOUGH = 64  # step records


def progress(run: RunDir) -> dict[str, Any]:
    """Return step, time (epoch seconds), attempt, rank and the newest of all FIGURES; {} without a step."""
    return newest(_last_steps(run.metrics_file))


def newest(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Put together what the first rank's last step records tell.

    A line need not tell all: DeepSpeed has the loss and the speed in two. The first rank counts, because the
    loss of another one is that of other samples.

    Args:
        records: step records, the newest first.
    """
    found = list(records)
    if not found:
        return {}
    attempt, rank = found[0].get("attempt"), min(record.get("rank", 0) for record in found)
    own = [record for record in found if record.get("rank", 0) == rank and record.get("attempt") == attempt]
    own = own or [record for record in found if record.get("attempt") == attempt]
    head = {key: own[0].get(key) for key in ("step", "time", "attempt", "rank")}
    told = {key: record[key] for record in reversed(own) for key in FIGURES if key in record}
    return head | {key: told[key] for key in FIGURES if key in told}


def _last_steps(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines_from_end(path):
        record = _step(line)
        if record is not None:
            found.append(record)
            if len(found) >= _ENOUGH:
                break
    return found


def _step(line: bytes) -> dict[str, Any] | None:
    if b'"step"' not in line:
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_step = isinstance(record, dict) and record.get("kind") == "step" and "step" in record
    return record if is_step else None


def lines_from_end(path: Path, most: int = _MOST) -> Iterator[bytes]:
    """Yield the whole lines among the last `most` bytes of a file, the last line first.

    A line without its end is still being written, and left out.
    """
    try:
        file = path.open("rb")
    except OSError:
        return
    with file:
        at = file.seek(0, 2)
        start, rest, half = max(0, at - most), b"", True
        while at > start:
            at, end = max(start, at - _BLOCK), at
            file.seek(at)
            rest, *lines = (file.read(end - at) + rest).split(b"\n")
            if half and not lines:
                rest = b""  # all of it belongs to the line that is being written
                continue
            lines, half = (lines[:-1] if half else lines), False
            yield from reversed(lines)
        if start == 0 and not half:
            yield rest
