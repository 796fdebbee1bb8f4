"""Fixtures of all tests, and the marker of those that need real hosts."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.testbed.fixtures import accounting_bed, bed, make_bed, slurm_bed

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

__all__ = ["accounting_bed", "bed", "make_bed", "slurm_bed"]

NEED_HOSTS = {"accounting_bed", "bed", "make_bed", "slurm_bed"}


# Nothing here asserts a duration: a machine that is busy would make hypothesis' 200 ms one.
hypothesis.settings.register_profile("any-speed", deadline=None)
hypothesis.settings.load_profile("any-speed")


def pytest_configure() -> None:
    """Take SIGINT as a terminal's program does, and so what the tests start, which some interrupt.

    A shell without job control ignores it for what it starts with `&`, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a bed, so that `-m "not testbed"` leaves them out.

    Each xdist worker has beds of its own, which come up in a second.
    """
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if NEED_HOSTS & asked:
            item.add_marker(pytest.mark.testbed)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Share files out as tests/scheduling.py says, where they are to be shared out by file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.scheduling import BothEnds

    return BothEnds(config, log)
