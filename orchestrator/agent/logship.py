"""Send this host's log files to a supervisor that does not share our disk, by offset, each byte once."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any

from .streams import Stream

_WINDOW = 4 << 20  # bytes on their way that nobody has confirmed
_PATIENCE = 10.0  # seconds without a confirmation after which they are sent once more


class LogShip:
    """Knows how much of each log file has been sent and how much the supervisor has written down.

    A file at the supervisor's side only grows, whatever becomes of ours (see Stream).

    Args:
        folder: where the log files are.
        prefix: this host's name as it stands in file names.
    """

    def __init__(self, folder: str, prefix: str) -> None:
        self._folder = folder
        self._host = prefix
        self._have: dict[str, int] = {}
        self._streams: dict[str, Stream] = {}
        self._confirmed = time.monotonic()

    def resume(self, have: dict[str, int]) -> None:
        """Start again from what the supervisor has: file name -> bytes."""
        self._have = dict(have)
        self._confirmed = time.monotonic()
        for name, stream in self._streams.items():
            stream.resume(have.get(name, 0))

    def acknowledge(self, ends: dict[str, int]) -> None:
        """Take note that the supervisor has written files up to an offset: file name -> bytes."""
        self._confirmed = time.monotonic()
        for name in ends.keys() & self._streams.keys():
            self._streams[name].acknowledge(ends[name])

    def look(self) -> dict[str, int]:
        """See which files there are; return the size that each will have at the supervisor's side."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for name in [entry.name for entry in entries if is_log_of(self._host, entry.name)]:
                if name not in self._streams:
                    path = os.path.join(self._folder, name)
                    self._streams[name] = Stream(path, self._have.get(name, 0))
        for stream in self._streams.values():
            stream.look()
        return self.sizes()

    def sizes(self) -> dict[str, int]:
        """Return what look() has seen last."""
        return {name: stream.size for name, stream in self._streams.items()}

    @property
    def lost(self) -> dict[str, int]:
        """Return by file how many bytes were cut off before they could be sent, where there are any."""
        return {name: stream.lost for name, stream in self._streams.items() if stream.lost}

    def next_piece(self) -> tuple[dict[str, Any], bytes] | None:
        """Return the next unsent piece of any file as a message; None when there is none, or no room for it.

        The files take turns: one that grows faster than the network takes it holds up no other.
        """
        if sum(stream.flying for stream in self._streams.values()) >= _WINDOW:
            self._look_after_silence()
            return None
        for name in list(self._streams):
            piece = self._streams[name].next_piece()
            if piece is not None:
                self._streams[name] = self._streams.pop(name)
                return {"t": "log", "file": name, "offset": piece[0]}, piece[1]
        self._look_after_silence()
        return None

    def _look_after_silence(self) -> None:
        """Send again what nobody confirms: the supervisor's disk was full when it came."""
        if time.monotonic() - self._confirmed > _PATIENCE:
            self._confirmed = time.monotonic()
            for stream in self._streams.values():
                stream.send_again()

    def is_drained(self) -> bool:
        """Tell whether the supervisor has every byte written so far."""
        self.look()
        return all(stream.kept >= stream.size for stream in self._streams.values())


def is_log_of(host: str, name: str) -> bool:
    """Tell whether a file is a log of a host (its name as in file names), not of one called `HOST.rank1`.

    Besides what the host and its ranks print, that is `HOST.times`, when which file was how long,
    `HOST.samples`, what the host was doing, and what c10d's flight recorder wrote for a rank.
    """
    kinds = r"\.(log|times|samples|rank[0-9]+\.(out|err|fr\.[0-9]+))"
    return re.fullmatch(re.escape(host) + kinds, name) is not None
