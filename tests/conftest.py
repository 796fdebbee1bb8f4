"""Fixtures of all tests, and the marker of those that need real hosts."""

from __future__ import annotations

import pytest

from tests.testbed.fixtures import accounting_bed, bed, make_bed, slurm_bed

__all__ = ["accounting_bed", "bed", "make_bed", "slurm_bed"]

NEED_HOSTS = {"accounting_bed", "bed", "make_bed", "slurm_bed"}
NEED_SLURM = {"accounting_bed", "slurm_bed"}


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a bed, so that `-m "not testbed"` leaves them out.

    Those on a Slurm cluster become one xdist group: a test there waits for idle hosts, which another
    worker's jobs would take from it, and one worker need not bring a second cluster up.
    """
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if NEED_HOSTS & asked:
            item.add_marker(pytest.mark.testbed)
        if NEED_SLURM & asked:
            item.add_marker(pytest.mark.xdist_group("slurm"))
