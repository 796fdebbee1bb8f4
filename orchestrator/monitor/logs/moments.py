"""Moments as people write them: `10m` ago, `14:05`, `2026-11-21T14:05:00+01:00`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d(?:\.\d{1,6})?))?\Z")
EXPECTED = (
    "expected 10m or 1h30m (ago), HH:MM or HH:MM:SS (the last one), a date, a date and time, or @seconds"
)


def parse_moment(text: str, now: float) -> float:
    """Return a moment in epoch seconds.

    Args:
        text: a duration before now; a time of day, the last one that has been; an ISO 8601 date or date and
            time, of this machine's time zone unless it names one; `@` and epoch seconds.
        now: epoch seconds.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    if match := _CLOCK.match(text):
        return _last(int(match[1]), int(match[2]), float(match[3] or 0), now)
    try:
        if text.startswith("@"):
            return float(text[1:])
        if re.search(r"[a-z]\Z", text):
            from orchestrator.job.durations import parse_duration  # noqa: PLC0415 - its package needs pydantic

            return now - parse_duration(text)
        return datetime.fromisoformat(text).timestamp()  # one without a zone is of ours
    except (ValueError, OverflowError, OSError):
        raise ValueError(EXPECTED) from None


def _last(hour: int, minute: int, second: float, now: float) -> float:
    today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=0, microsecond=0)  # noqa: DTZ006
    moment = today + timedelta(seconds=second)
    if moment.timestamp() > now:
        moment -= timedelta(days=1)  # by the clock: a day may have 23 or 25 hours
    return moment.timestamp()
