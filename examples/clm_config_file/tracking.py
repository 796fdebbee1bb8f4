"""Where the figures go: two trackers of our own beside those that Accelerate knows.

JSON lines and CSV need nothing installed. Accelerate's own, such as `tensorboard`, are asked for by name.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from accelerate.tracking import GeneralTracker, get_available_trackers
from corpus import refuse

if TYPE_CHECKING:
    from pathlib import Path


class JsonLines(GeneralTracker):
    """One line of JSON for each `accelerator.log`, in `metrics.jsonl`; the first holds the arguments."""

    name = "jsonl"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.jsonl"

    @property
    def tracker(self) -> Path:
        """What is written to."""
        return self.path

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Write down what the run was started with."""
        self._add({"arguments": values})

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Write figures of a step."""
        self._add({"step": step, **values})

    def _add(self, values: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open(
            "a", encoding="utf-8"
        ) as file:  # appended: a resumed run goes on in the same file
            file.write(json.dumps(values) + "\n")


class Csv(JsonLines):
    """One row `step,name,value` for each figure, in `metrics.csv`."""

    name = "csv"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "metrics.csv"

    def store_init_configuration(self, values: dict[str, Any]) -> None:  # noqa: ARG002 - Accelerate's signature
        """Write the header, unless a resumed run finds it there."""
        if not self.path.exists():
            self._rows([("step", "name", "value")])

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Write figures of a step."""
        self._rows([(step, name, value) for name, value in values.items()])

    def _rows(self, rows: list[tuple[Any, ...]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)


def trackers(names: list[str], folder: Path) -> list[Any]:
    """Return what `Accelerator(log_with=…)` takes; one that is not installed ends the rank.

    Accelerate 1.15 itself leaves it out without a word.
    """
    ours = {"jsonl": JsonLines, "csv": Csv}
    known = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in ours and name not in known:
            fix = f"install it, or choose from {', '.join([*ours, *known])}"
            refuse("no such tracker on this host (--report_to)", name, fix)
    return [ours[name](folder) if name in ours else name for name in names]
