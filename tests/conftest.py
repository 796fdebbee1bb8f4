"""Fixtures of all tests, and the marker of those that need real hosts."""

from __future__ import annotations

import pytest

from tests.testbed.fixtures import bed, make_bed

__all__ = ["bed", "make_bed"]

NEED_HOSTS = {"bed", "make_bed"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for a bed, so that `-m "not testbed"` leaves them out."""
    for item in items:
        if NEED_HOSTS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.testbed)
