"""How a run is watched, as `plan.json` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

AUTO, NEVER = "auto", "never"
_INTERVAL = 10.0  # seconds
_HOSTS = 100  # up to here; beyond it, the submit side takes in as many samples a second as of 100 hosts


@dataclass(frozen=True, slots=True)
class MonitorPlan:
    """How a run is watched, in the words of the job file's `monitor` section; times are seconds.

    Attributes:
        sample_interval: between two measurements of a host; or "auto".
        hang_after: silence after which ranks that others wait for hang; or "auto", "never".
        stop_after: how long a known hang may last before the run is ended; or "never".
        patterns: the user's own files of patterns for diagnose, absolute paths.
    """

    sample_interval: float | str = AUTO
    hang_after: float | str = AUTO
    stop_after: float | str = 600.0
    patterns: tuple[str, ...] = ()

    def interval(self, hosts: int) -> float:
        """Return the seconds between two measurements of one of `hosts` hosts."""
        if isinstance(self.sample_interval, str):
            return _INTERVAL * max(1.0, hosts / _HOSTS)
        return self.sample_interval


def monitor_from(entry: dict[str, Any] | None) -> MonitorPlan:
    """Read back what `plan.json` holds; a plan of an earlier version has nothing of it."""
    if entry is None:
        return MonitorPlan()
    return MonitorPlan(**entry | {"patterns": tuple(entry["patterns"])})
