"""Tell people of a run while its supervisor lives (`notify` in the job file).

The run waits for it at its end only, and for some seconds: a supervisor on Slurm is the job's batch script,
and what it has not sent when it ends is not sent any more.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.monitor.records import Records
from orchestrator.notify.channel import Channel
from orchestrator.notify.facts import facts_of
from orchestrator.notify.message import make_message
from orchestrator.notify.occasions import Occasions, is_wanted, of_end
from orchestrator.notify.store import read_values, take_values
from orchestrator.notify.sweeps import first_start, last_end, sweep_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.plan import LaunchPlan, NotifyPlan
    from orchestrator.rundir import RunDir
    from orchestrator.sweep.sweepdir import SweepDir

_POLL = 1.0  # seconds between two looks at the events
LAST_SECONDS = 10.0  # for all that is still to be sent at the end
_OF_SWEEPS = {"start": "start", "end": "end", "failure": "end"}  # of a point: what it may be of its sweep


def start_notifying(run_dir: RunDir, plan: LaunchPlan) -> Notifier | None:
    """Start to tell people of a run; None where nobody is to be told."""
    if not plan.notify:
        return None
    try:
        notifier = Notifier(run_dir, plan)
        notifier.start()
    except Exception:  # noqa: BLE001 - whatever it is, the run must not suffer from it
        traceback.print_exc()
        return None
    return notifier


class Notifier(threading.Thread):
    """Reads the run's events, as anybody may, and hands messages to the ways that want them.

    What was there before belongs to an earlier supervisor, which has told of it.
    """

    def __init__(self, run_dir: RunDir, plan: LaunchPlan) -> None:
        super().__init__(name="notify", daemon=True)
        self._run_dir = run_dir
        self._plan = plan
        self._events = Records(run_dir.events_file)
        self._occasions = Occasions()
        self._ended = threading.Event()
        for event in self._events.new():
            self._occasions.of(event)
        values = {**os.environ, **read_values(run_dir)}
        self._channels = channels(run_dir, plan, values)

    def run(self) -> None:
        """Look at the events until the end, and once more then."""
        while not self._ended.wait(_POLL):
            self._look()
        self._look()

    def _look(self) -> None:
        try:
            for event in self._events.new():
                occasion = self._occasions.of(event)
                if occasion is not None:
                    self._tell(*occasion)
        except Exception:  # noqa: BLE001 - whatever it is, the run must not suffer from it
            traceback.print_exc()

    def _tell(self, occasion: str, reason: str) -> None:
        status = self._run_dir.status()
        tell(self._channels, self._run_dir, self._plan, occasion, status=status, reason=reason)

    def pause(self, seconds: float = LAST_SECONDS) -> None:
        """End without an end of the run: another supervisor goes on with it."""
        self._ended.set()
        deadline = time.monotonic() + seconds
        self.join(seconds)
        for channel in self._channels:
            channel.end()
        for channel in self._channels:
            channel.give_up(deadline)

    def finish(self, seconds: float = LAST_SECONDS) -> None:
        """Tell of the end, which the run directory shows already; return after `seconds` at the latest."""
        take_values(self._run_dir)
        self._ended.set()
        deadline = time.monotonic() + seconds
        self.join(seconds)
        try:
            self._tell(of_end(self._run_dir.status()["state"]), "")
        except Exception:  # noqa: BLE001 - as above
            traceback.print_exc()
        self.pause(deadline - time.monotonic())


def tell(
    ways: Sequence[Channel],
    run_dir: RunDir,
    plan: LaunchPlan,
    occasion: str,
    *,
    status: Mapping[str, Any],
    reason: str = "",
) -> None:
    """Hand a message to the ways that want it; of a sweep its points' first start and last end.

    Args:
        ways: of the run.
        run_dir: the run.
        plan: its plan.
        occasion: what has come.
        status: its state, since and reason.
        reason: what is to be said in place of the status' own reason.
    """
    sweep = sweep_of(run_dir)
    wanting = [way for way in ways if is_wanted(way.target.on, occasion, of_point=sweep is not None)]
    if wanting:
        message = make_message(occasion, facts_of(run_dir, plan, status, reason))
        for way in wanting:
            way.put(message)
    if sweep is not None and occasion in _OF_SWEEPS:
        _tell_of_sweep(ways, _OF_SWEEPS[occasion], sweep, run_dir, plan)


def _tell_of_sweep(
    ways: Sequence[Channel], occasion: str, sweep: SweepDir, run_dir: RunDir, plan: LaunchPlan
) -> None:
    wanting = [way for way in ways if occasion in way.target.on]
    make = first_start if occasion == "start" else last_end
    message = make(sweep, run_dir, plan) if wanting else None
    if message is not None:
        for way in wanting:
            way.put(message)


def channels(run_dir: RunDir, plan: LaunchPlan, values: dict[str, str]) -> Sequence[Channel]:
    """Start the channels of a run; each says in the run's events what became of its messages."""

    def told(event: str, target: NotifyPlan, why: str | None) -> None:
        run_dir.add_event("notified", what=event, to=target.name, ok=why is None, why=why or "")

    made = [Channel(target, values, Path(plan.base_dir), told) for target in plan.notify]
    for channel in made:
        channel.start()
    return made
