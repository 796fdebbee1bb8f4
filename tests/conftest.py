"""Fixtures of all tests, and the marker of those that need real hosts."""

from __future__ import annotations

import pytest

from tests.testbed.fixtures import accounting_bed, bed, make_bed, slurm_bed

__all__ = ["accounting_bed", "bed", "make_bed", "slurm_bed"]

NEED_HOSTS = {"accounting_bed", "bed", "make_bed", "slurm_bed"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a bed, so that `-m "not testbed"` leaves them out.

    Each xdist worker has beds of its own, which come up in a second.
    """
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        if NEED_HOSTS & asked:
            item.add_marker(pytest.mark.testbed)
