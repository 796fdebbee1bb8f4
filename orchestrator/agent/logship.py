"""Send this host's log files to a supervisor that does not share our disk, by offset, each byte once."""

from __future__ import annotations

import os
import re
from typing import Any

_PIECE = 1 << 18  # bytes


class LogShip:
    """Knows how much of each log file has been sent and how much the supervisor has written down."""

    def __init__(self, folder: str, prefix: str) -> None:
        self._folder = folder
        self._host = prefix
        self._sent: dict[str, int] = {}
        self._kept: dict[str, int] = {}

    def resume(self, have: dict[str, int]) -> None:
        """Start again from what the supervisor has: file name -> bytes."""
        self._sent = dict(have)
        self._kept = dict(have)

    def acknowledge(self, message: dict[str, Any]) -> None:
        """Take note that the supervisor has written a file up to an offset."""
        self._kept[message["file"]] = max(self._kept.get(message["file"], 0), message["end"])

    def next_piece(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next unsent piece of any file as a message; None when all is sent."""
        for name, size in self._sizes().items():
            start = self._sent.get(name, 0)
            if size > start:
                with open(os.path.join(self._folder, name), "rb") as file:
                    file.seek(start)
                    data = file.read(_PIECE)
                self._sent[name] = start + len(data)
                return {"t": "log", "file": name, "offset": start}, data
        return None

    def is_drained(self) -> bool:
        """Tell whether the supervisor has every byte written so far."""
        return all(self._kept.get(name, 0) >= size for name, size in self._sizes().items())

    def _sizes(self) -> dict[str, int]:
        with os.scandir(self._folder) as entries:
            return {e.name: e.stat().st_size for e in entries if is_log_of(self._host, e.name)}


def is_log_of(host: str, name: str) -> bool:
    """Tell whether a file is a log of a host (its name as in file names), not of one called `HOST.rank1`.

    Besides what the host and its ranks print, that is `HOST.times`, when which file was how long, and
    `HOST.samples`, what the host was doing.
    """
    kinds = r"\.(log|times|samples|rank[0-9]+\.(out|err))"
    return re.fullmatch(re.escape(host) + kinds, name) is not None
