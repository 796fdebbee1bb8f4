"""`metrics.jsonl`: everything that a run told or was seen doing, one flat JSON object a line.

Made to be read by anything: `pandas.read_json("metrics.jsonl", lines=True)` is a table of it. Times are epoch
seconds of the supervisor's clock. Every record has `time`, `attempt`, `kind` and `host`; by kind:

    step   rank, step and what the rank's own line told of it, under these names where it told them: loss,
           eval_loss, learning_rate, grad_norm, tokens_per_second, samples_per_second, step_time (seconds),
           tflops, mfu, loss_scale, epoch; any other `name value` of the line under its own name
    rank   rank, cpu (cores in use), memory (bytes resident), log_bytes (written so far), gpu (its GPU's index
           on the host), gpu_busy (that GPU's utilization)
    gpu    gpu (index on the host), utilization (0 to 1), memory, memory_total (bytes), temperature (Celsius),
           power (watts), clock (MHz), throttled (why the clock is held down, or absent), ecc_errors
           (uncorrected so far)
    host   cpu (cores in use), cores, load, memory, memory_total, disk_free (bytes), sent, received, read,
           written (bytes a second)

A value that is not known is absent. NaN and infinities are the texts "NaN", "Infinity", "-Infinity", which
pandas and float() read, and strict JSON readers too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20


class Records:
    """A growing file of JSON objects, each read once; half a line is left for the next time.

    Args:
        path: `metrics.jsonl`, `events.jsonl` or another such file; it need not exist yet.
        start: bytes at its beginning to leave out; the rest of a line there is none.
        needle: bytes that a line holds if it is wanted; the others are not even parsed.
    """

    def __init__(self, path: Path, start: int = 0, needle: bytes = b"") -> None:
        self._needle = needle
        self.path = path
        self._offset = start
        self._rest = b""

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield the objects that came since the last call; a line that is none is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(_CHUNK):
                    self._offset += len(data)
                    *lines, self._rest = (self._rest + data).split(b"\n")
                    wanted = [line for line in lines if self._needle in line]
                    yield from filter(None, map(parsed, wanted))
        except FileNotFoundError:
            return


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None when it holds none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
