"""The logs of a run's hosts and ranks as one, by time, with the origin of each line.

Hosts tell when which log was how long (`HOST.times`), by their own clocks; `clocks.json` tells how far those
are off. So a line's time is right to about a quarter of a second and the clock's uncertainty. Lines of one
log keep their order always. What is not told is not made up:

- A host that has left no list (an older run) comes first, log after log, its lines without a time.
- What a log holds beyond the list (the agent was killed) comes where the list ends, without a time.

With `follow`, what is there already is sorted like that; then lines come as they arrive, those that arrive
together by time. A line's time is then that of its arrival here, unless its host has already told it.
"""

from __future__ import annotations

from orchestrator.monitor.logs.select import Selection
from orchestrator.monitor.logs.show import View
from orchestrator.monitor.logs.watch import Viewer, print_logs

__all__ = ["Selection", "View", "Viewer", "print_logs"]
