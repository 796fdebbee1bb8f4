"""The collector's loop: sweep, write, ask the rules, until the supervisor says that the attempt is over."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.collector import END
from orchestrator.collector.intake import Intake
from orchestrator.collector.rules import Rules
from orchestrator.collector.tags import Tags
from orchestrator.collector.write import Metrics

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

_SHORTEST, _LONGEST = 0.25, 2.0  # seconds between two sweeps
_SHARE = 4  # a sweep may take one part in so many of the time
_TAGS_SECONDS = 20.0  # for the last look at the checkpoints
DONE = {"event": "taken_in"}
"""What the collector says when all of the attempt is in `metrics.jsonl`; new checkpoints may follow."""


def collect(run_dir: RunDir, number: int) -> None:
    """Collect one attempt until it is over, and what an earlier one left.

    Raises:
        OSError: metrics.jsonl cannot be written at all.
    """
    metrics = Metrics(run_dir)
    saved = metrics.saved
    first = saved.get("attempt", number)
    for earlier in (one for one in run_dir.attempts() if first <= one.number < number and one.logs.is_dir()):
        Collector(run_dir, earlier.number, metrics, saved).take_in()
        saved = {"tags": saved.get("tags")}
    Collector(run_dir, number, metrics, saved).run()
    metrics.close()


class Collector:
    """One attempt.

    Args:
        run_dir: the run.
        number: the attempt.
        metrics: where records go.
        saved: what this or an earlier process saved of it.
    """

    def __init__(self, run_dir: RunDir, number: int, metrics: Metrics, saved: dict[str, Any]) -> None:
        attempt = run_dir.attempt(number)
        plan = run_dir.plan(attempt)
        own = saved if saved.get("attempt") in {None, number} else {}
        self._metrics = metrics
        self._intake = Intake(run_dir, attempt, plan, own)
        self._rules = Rules(plan.monitor, plan.monitor.interval(len(plan.hosts)))
        self._tags = Tags(Path(plan.checkpoint_dir), saved.get("tags")) if plan.checkpoint_dir else None

    def run(self) -> None:
        """Go on until the attempt is over, then take in its last bytes and its last checkpoint.

        When the supervisor is gone instead, the run may go on under another, whose collector goes on here.
        """
        self._save()
        if self._tags is not None:
            self._tags.start()
        word = None
        while word is None:
            word = _heard(self._once())
        if END not in word:
            self._once()
            self._save()
            return
        self.take_in()
        tell(DONE)
        if self._tags is not None:
            self._tags.finish(_TAGS_SECONDS)
            self._tell_tags()
            self._save()

    def _once(self) -> float:
        """Sweep once; return the seconds until the next time."""
        began = time.process_time()
        now = time.time()
        records = self._intake.sweep(now)
        self._metrics.add(records)
        self._tell(now)
        if self._metrics.due():
            self._save()
        took = time.process_time() - began
        return min(_LONGEST, max(_SHORTEST, _SHARE * took))

    def _tell(self, now: float) -> None:
        events, self._intake.events = self._intake.events, []
        for event in (*events, *self._rules.look(self._intake.facts, now)):
            tell(event)
        self._tell_tags()

    def _tell_tags(self) -> None:
        while self._tags is not None and not self._tags.found.empty():
            tell(self._tags.found.get())

    def take_in(self) -> None:
        """Take in everything that is there, lines without an end too."""
        now = 0.0
        while self._intake.grew(now):
            now = time.time()
            self._intake.scan_again()
            self._metrics.add(self._intake.sweep(now))
        self._metrics.add(self._intake.rest(time.time()))
        for event in self._intake.events:
            tell(event)
        self._intake.events = []
        self._save()

    def _save(self) -> None:
        told = None if self._tags is None else self._tags.told
        self._metrics.save({**self._intake.state(), "tags": told})


def _heard(seconds: float) -> bytes | None:
    """Wait; return what the supervisor has said, b"" when it is gone, None when it has said nothing."""
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return os.read(sys.stdin.fileno(), 1 << 12) if ready else None


def tell(event: dict[str, Any]) -> None:
    """Tell the supervisor; one that is gone hears nothing."""
    with suppress(OSError):
        sys.stdout.write(json.dumps(event) + "\n")  # ASCII, as the locale may have no more
        sys.stdout.flush()
