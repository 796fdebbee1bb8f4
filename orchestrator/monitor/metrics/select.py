"""Which records of `metrics.jsonl` are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.rundir import RunDir

KINDS = ("step", "rank", "gpu", "host")


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that are wanted.

    Attributes:
        kinds: of KINDS.
        hosts: names; none of them: all hosts.
        ranks: None: all, and records of no rank.
        attempt: None: all.
    """

    kinds: tuple[str, ...] = ("step",)
    hosts: frozenset[str] = frozenset()
    ranks: frozenset[int] | None = None
    attempt: int | None = None

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a record is wanted."""
        return (
            record.get("kind") in self.kinds
            and (not self.hosts or record.get("host") in self.hosts)
            and (self.ranks is None or record.get("rank") in self.ranks)
            and (self.attempt is None or record.get("attempt") == self.attempt)
        )


class Selected:
    """The wanted records of a run, each once, as they come.

    Args:
        run: the run.
        selection: which.
    """

    def __init__(self, run: RunDir, selection: Selection) -> None:
        needle = f'"{selection.kinds[0]}"'.encode() if len(selection.kinds) == 1 else b""
        # Of 1,000 hosts' measurements, steps are one record in thousands: the others need not be parsed.
        self._records = Records(run.metrics_file, needle=needle)
        self._selection = selection

    def new(self) -> Iterator[dict[str, Any]]:
        """Yield those that came since the last call."""
        return filter(self._selection.wants, self._records.new())
