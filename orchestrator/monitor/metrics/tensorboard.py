"""A run's metrics as TensorBoard's event files, written by its own writer (tensorboard 2.21)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_NOT_VALUES = {"time", "attempt", "kind", "host", "rank", "gpu", "step"}


class Export:
    """Writes records below DIR/RUN_ID/attempt-N, where TensorBoard shows each attempt as a curve of its own.

    Within one, steps that were done twice would draw a line back over the plot. Of steps, the tags are
    `loss` and so on for the lowest rank and `rank7/loss` for the others; measurements have no step: their
    x-axis counts seconds since the first record.

    Args:
        folder: DIR/RUN_ID.

    Raises:
        OrchestratorError: tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.summary import Writer  # noqa: PLC0415 - only who exports needs it
        except ImportError as error:
            fix = "pip install 'zeropp-orchestrator[monitor]', or pip install tensorboard"
            problem = Problem("tensorboard is not installed beside orchestrate", "--tensorboard", fix=fix)
            raise OrchestratorError(problem) from error
        self._make = Writer
        self._folder = folder
        self._writers: dict[int, Any] = {}
        self._rank: int | None = None
        self._began: float | None = None
        self.count = 0

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the values of records, in order."""
        for record in records:
            when = float(record["time"])
            self._began = when if self._began is None else self._began
            step = int(record["step"]) if "step" in record else round(when - self._began)
            writer, prefix = self._writer(int(record.get("attempt", 1))), self._prefix(record)
            for name, value in _numbers(record):
                writer.add_scalar(prefix + name, value, step, wall_time=when)
                self.count += 1

    def _prefix(self, record: Mapping[str, Any]) -> str:
        if record["kind"] == "step":
            rank = int(record.get("rank", 0))
            self._rank = rank if self._rank is None else self._rank
            return "" if rank == self._rank else f"rank{rank}/"
        words = [record["kind"], record.get("host")]
        words += [f"{name}{record[name]}" for name in ("rank", "gpu") if record["kind"] == name]
        return "/".join(str(word) for word in words if word is not None) + "/"

    def _writer(self, attempt: int) -> Any:
        if attempt not in self._writers:
            self._writers[attempt] = self._make(str(self._folder / f"attempt-{attempt}"))
        return self._writers[attempt]

    def flush(self) -> None:
        """Have everything on the disk, for a TensorBoard that looks on."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write the rest."""
        for writer in self._writers.values():
            writer.close()


def _numbers(record: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in record.items():
        if name in _NOT_VALUES or isinstance(value, bool):
            continue
        try:
            yield name, float(value)
        except (TypeError, ValueError):
            continue
