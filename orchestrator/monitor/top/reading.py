"""Bring what is new in a run directory to the state; everything that touches the disk is here."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.records import Records
from orchestrator.monitor.status import current_status
from orchestrator.monitor.top.host_log import HostLog, LogLine
from orchestrator.monitor.top.state import RunState
from orchestrator.rundir import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orchestrator.monitor.top.snapshot import HostView, Snapshot
    from orchestrator.plan import PlannedHost
    from orchestrator.rundir import RunDir

_STATUS_SECONDS = 1.0  # between looks at the state: a question to Slurm where there is one
_LOG_SECONDS = 0.5  # between looks at the logs of a host: two files a rank, perhaps on a network disk
_RANKS_SECONDS = 2.0  # between comparisons of all ranks
_WHOLE = 16 << 20  # bytes at the end of metrics.jsonl that are read whole
_SAMPLES = 256  # pieces of what is before them
_PIECE = 32 << 10  # bytes
_ODD = (ValueError, TypeError, KeyError, AttributeError)  # of a line that holds other things than it should


@dataclass(frozen=True)
class Look:
    """What the screen needs at once: the run, and the log of one host."""

    snapshot: Snapshot
    log: tuple[LogLine, ...] = ()
    log_host: str = ""


class Reader:
    """Reads a run again and again, and every byte once.

    Args:
        run: the run; nothing of it need exist yet.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._state = RunState(run.run_id)
        self._events = Records(run.events_file)
        self._metrics: Records | None = None
        self._log: HostLog | None = None
        self._lines: tuple[LogLine, ...] = ()
        self._attempt = 0
        self._planned = False
        self._seen: dict[Path, tuple[int, int] | None] = {}
        self._due = {"status": 0.0, "ranks": 0.0, "log": 0.0}
        self._problems: dict[str, str] = {}

    def look(self, host: str = "") -> Look:
        """Read what is new, and the log of `host`; a file that cannot be read is told of, not raised."""
        self._problems.clear()
        for what, read in (
            ("plan.json", self._read_plan),
            ("events.jsonl", self._read_events),
            ("metrics.jsonl", self._read_metrics),
            ("status.json", self._read_status),
            ("verdict.json", self._read_verdict),
            ("diagnosis.json", self._read_diagnosis),
        ):
            self._guarded(what, read)
        if self._is_due("ranks", _RANKS_SECONDS):
            self._state.compare_ranks()
        lines = self._log_of(host)
        self._state.take_problems([f"{what}: {why}" for what, why in self._problems.items()])
        return Look(self._state.snapshot(), lines, host)

    def _guarded(self, what: str, read: Callable[[], None]) -> None:
        try:
            read()
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._problems[what] = getattr(error, "strerror", None) or str(error)

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + seconds
        return True

    def _read_plan(self) -> None:
        if not self._planned:
            self._state.begin(0, self.run.plan().hosts)
            self._planned = True

    def _read_events(self) -> None:
        for event in self._events.new():
            if event.get("event") == "attempt" and isinstance(event.get("attempt"), int):
                self._begin(event["attempt"])
            with contextlib.suppress(*_ODD):
                self._state.take_event(event)

    def _begin(self, attempt: int) -> None:
        self._attempt = attempt
        self._log, self._lines = None, ()
        self._guarded(
            f"attempt-{attempt}/plan.json", lambda: self._state.begin(attempt, self._hosts(attempt))
        )

    def _hosts(self, attempt: int) -> tuple[PlannedHost, ...]:
        return self.run.plan(self.run.attempt(attempt)).hosts

    def _read_metrics(self) -> None:
        if self._metrics is None:
            path = self.run.metrics_file
            before = max(0, path.stat().st_size - _WHOLE)
            for record in sampled_steps(path, before):
                with contextlib.suppress(*_ODD):
                    self._state.take_record(record)
            self._metrics = Records(path, before)
        for record in self._metrics.new():
            with contextlib.suppress(*_ODD):
                self._state.take_record(record)

    def _read_status(self) -> None:
        if self._is_due("status", _STATUS_SECONDS) and not self._is_settled():
            self._state.take_status(current_status(self.run))

    def _is_settled(self) -> bool:
        """Tell whether the verdict is read: a big document, which nobody changes any more."""
        return self._seen.get(self.run.verdict_file) is not None

    def _read_verdict(self) -> None:
        verdict = self._changed(self.run.verdict_file)
        if verdict is not None:
            self._state.take_status(current_status(self.run))
            self._state.take_verdict(verdict)

    def _read_diagnosis(self) -> None:
        diagnosis = self._changed(self.run.diagnosis_file)
        if diagnosis is not None:
            self._state.take_diagnosis(diagnosis)

    def _changed(self, path: Path) -> dict[str, Any] | None:
        """Return the document in a file that is another one than at the last look."""
        status = path.stat()
        mark = (status.st_mtime_ns, status.st_ino)
        if self._seen.get(path) == mark:
            return None
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "Permission denied")
        document = read_json(path)
        self._seen[path] = mark if document is not None else None
        return document

    def _log_of(self, name: str) -> tuple[LogLine, ...]:
        if not name:
            return ()
        if self._log is None or self._log.name != name:
            host = next((host for host in self._state.snapshot().hosts if host.name == name), None)
            self._log, self._lines = (None if host is None else self._open_log(host)), ()
        if self._log is None or (self._lines and not self._is_due("log", _LOG_SECONDS)):
            return self._lines
        try:
            self._lines = self._log.look(time.time())
        except OSError as error:
            self._problems[f"logs of {name}"] = error.strerror or str(error)
        return self._lines

    def _open_log(self, host: HostView) -> HostLog | None:
        numbers = [attempt.number for attempt in self.run.attempts()]
        number = self._attempt or max(numbers, default=0)
        if not number:
            return None
        attempt = self.run.attempt(number)
        clock = (read_json(attempt.clocks_file) or {}).get(host.name) or {}
        return HostLog(attempt.logs, host, float(clock.get("offset") or 0.0))


def sampled_steps(path: Path, end: int) -> Iterator[dict[str, Any]]:
    """Yield step records from pieces of a long file, evenly spaced before `end`: enough for a curve.

    A run of weeks with a thousand hosts leaves gigabytes, nearly all of them samples of hosts.
    """
    pieces = min(_SAMPLES, end // _PIECE)
    with path.open("rb") as file:
        for index in range(pieces):
            file.seek(index * end // pieces)
            lines = file.read(_PIECE).split(b"\n")[1:-1]
            yield from filter(None, map(_step_record, lines))


def _step_record(line: bytes) -> dict[str, Any] | None:
    if b'"step"' not in line:  # quicker than to parse it
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("kind") == "step" else None
