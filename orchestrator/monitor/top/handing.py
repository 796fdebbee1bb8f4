"""Hand on to the screen what other threads have found."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_SECONDS = 1.0  # between looks whether the loop has been closed before our turn came


class Handing:
    """Has things done where the screen is drawn; made there.

    Textual's `call_from_thread` (8.2) makes a coroutine, of which Python complains on the terminal when the
    application has ended at that moment.
    """

    def __init__(self) -> None:
        self._loop, self._context = asyncio.get_running_loop(), contextvars.copy_context()

    def __call__(self, act: Callable[..., object], *given: object) -> bool:
        """Have something done and wait for it; tell whether it was: not when the application has ended."""
        done = threading.Event()

        def work() -> None:
            try:
                act(*given)
            finally:
                done.set()

        try:
            self._loop.call_soon_threadsafe(work, context=self._context)
        except RuntimeError:  # the loop is closed
            return False
        while not done.wait(_LOOK_SECONDS):
            if self._loop.is_closed():
                return False
        return True
