"""Signals that tell a supervisor to end, held back while nobody listens.

`cancel` wakes a supervisor on Slurm with SIGTERM, and Slurm says with signals that time is up. Their default
is death: one that comes while Python still starts, or when the verdict is being written, would leave a run
without a verdict, and a job that Slurm calls FAILED.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


def hold() -> None:
    """Keep the signals until somebody listens; what has come by then is heard at once."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextlib.contextmanager
def listening(
    loop: AbstractEventLoop, answers: Mapping[signal.Signals, Callable[[], None]]
) -> Iterator[None]:
    """Have signals call functions in the loop; afterwards they are held back again, if they were.

    asyncio gives them their default back when the loop closes (Python 3.11), so they are held before that.
    """
    for number, answer in answers.items():
        loop.add_signal_handler(number, answer)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, list(answers))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
