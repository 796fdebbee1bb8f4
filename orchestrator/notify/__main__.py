"""`python -m orchestrator.notify RUN_DIR`: tell of a run's end, with the values of variables on the input."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from orchestrator.monitor.status import current_status
from orchestrator.notify.notifier import channels, tell
from orchestrator.notify.occasions import of_end
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
    ways = channels(run, plan, values)
    tell(ways, run, plan, of_end(status["state"]), status=status)
    for way in ways:
        way.end()
    deadline = time.monotonic() + _SECONDS
    for way in ways:
        way.give_up(deadline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
