"""One way to tell somebody, with a thread of its own: one that does not answer holds up no other."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

from orchestrator.notify.deliver import deliver
from orchestrator.notify.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from orchestrator.notify.message import Message
    from orchestrator.plan import NotifyPlan

    Told = Callable[[str, NotifyPlan, str | None], None]

_PAUSES = (2.0, 15.0, 60.0)  # seconds before the second try and those after it
_LAST_PAUSE = 1.0  # at the end, when every second is the hosts' time


class Channel(threading.Thread):
    """Delivers messages in order, each with more tries where they may help.

    A daemon: a name server that does not answer keeps a thread for minutes, and nothing waits for it then.

    Args:
        target: over which way, to whom.
        values: of the environment variables that it names.
        folder: where a command runs.
        told: is called after each message with its event, the target, and why not (None: it has arrived).
    """

    def __init__(self, target: NotifyPlan, values: Mapping[str, str], folder: Path, told: Told) -> None:
        super().__init__(name=f"notify-{target.way}", daemon=True)
        self.target = target
        self._values = values
        self._folder = folder
        self._told = told
        self._waiting: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: list[Message] = []
        self._closed = False

    def put(self, message: Message) -> None:
        """Have a message delivered."""
        with self._lock:
            self._open.append(message)
        self._waiting.put(message)

    def end(self) -> None:
        """Take no more messages, and hurry with those there are."""
        self._over.set()
        self._waiting.put(None)

    def give_up(self, deadline: float) -> None:
        """Wait for the messages there are until a time (time.monotonic), and say which have not arrived."""
        self.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            left, self._closed = list(self._open), True
        for message in left:
            self._told(message.event, self.target, "it took too long, and nothing waits for it any more")

    def run(self) -> None:
        """Deliver until the end."""
        while (message := self._waiting.get()) is not None:
            why = self._deliver(message)
            with self._lock:
                if self._closed:
                    return
                self._open.remove(message)
            self._told(message.event, self.target, why)

    def _deliver(self, message: Message) -> str | None:
        """Return None, or why the last try failed."""
        for pause in (*_PAUSES, None):
            try:
                deliver(self.target, message, self._values, self._folder)
            except DeliveryError as error:
                if pause is None or not error.again:
                    return str(error)
            except Exception as error:  # noqa: BLE001 - a thread that ended here would swallow all later messages
                return f"{type(error).__name__} in orchestrate itself"
            else:
                return None
            if self._over.wait(pause) and not self._closed:
                time.sleep(_LAST_PAUSE)
        return None
