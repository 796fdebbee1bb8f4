"""See this host's logs grow and send them, where the disk is not the supervisor's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable

from .logship import LogShip
from .times import LOOK_SECONDS, short_names

if TYPE_CHECKING:
    from .channel import Channel
    from .watch import Watch


class Sending:
    """The logs' way to the supervisor, and their index on the way.

    Args:
        folder: where the log files are.
        host: this host's name as it stands in file names.
        watch: is told how long the files are, and holds the index.
        log: adds a line of ours to the host's log.

    Attributes:
        ship: what has been sent and what has arrived.
    """

    def __init__(self, folder: str, host: str, watch: Watch, log: Callable[[str], None]) -> None:
        self.ship = LogShip(folder, host)
        self._host = host
        self._watch = watch
        self._log = log
        self._next_look = 0.0
        self._told = 0

    def look(self, *, at_once: bool, last: bool) -> None:
        """Note how long the logs are; not at each turn, as every confirmation of a piece is one.

        Args:
            at_once: do it in any case.
            last: note every change, however short ago the last one was.
        """
        now = time.monotonic()
        if now < self._next_look and not at_once:
            return
        self._next_look = now + LOOK_SECONDS
        self._watch.sizes = short_names(self.ship.look().items(), self._host)
        self._watch.times.look(time.time(), last=last)
        lost = sum(self.ship.lost.values())
        if lost > self._told:
            self._told = lost
            self._log(f"{lost} bytes of logs were cut off before they could be sent: {self.ship.lost}")

    def send(self, channel: Channel) -> None:
        """Send what is new, as much as there is room for."""
        if channel.has_room:
            channel.send_all(iter(self.ship.next_piece, None))
