"""`python -m orchestrator.notify RUN_DIR`: tell of a run's end, with the values of variables on the input."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from orchestrator.monitor.status import current_status
from orchestrator.notify.facts import facts_of
from orchestrator.notify.message import make_message
from orchestrator.notify.notifier import channels
from orchestrator.notify.occasions import is_wanted, of_end
from orchestrator.rundir import RunDir
from orchestrator.supervisor.diagnosing import write_diagnosis

_SECONDS = 120.0


def main() -> int:
    """Tell everybody who wants to know; return 0."""
    run = RunDir(Path(sys.argv[1]))
    values = {**os.environ, **json.loads(sys.stdin.read() or "{}")}
    plan, status = run.latest_plan(), current_status(run)
    if run.verdict() is not None:
        write_diagnosis(run)  # which its supervisor would have written
    occasion = of_end(status["state"])
    message = make_message(occasion, facts_of(run, plan, status))
    ways = channels(run, plan, values)
    for way in ways:
        if is_wanted(way.target.on, occasion):
            way.put(message)
        way.end()
    deadline = time.monotonic() + _SECONDS
    for way in ways:
        way.give_up(deadline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
