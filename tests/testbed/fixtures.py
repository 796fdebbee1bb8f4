"""Pytest fixtures: `bed`, two hosts for the whole session, and `make_bed` for any other kind."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.requirements import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def require_hosts() -> None:
    """Skip where no testbed can run; fail instead when ORCH_REQUIRE lists `ssh`, as CI does."""
    if (why := missing()) is None:
        return
    if "ssh" in os.environ.get("ORCH_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"ORCH_REQUIRE asks for ssh hosts, but {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """Two hosts of two slots, with an ordinary user; leave cables plugged and disks shared behind you."""
    require_hosts()
    with Testbed.up(nodes=2, slots=2, ordinary_user=True) as made:
        yield made


@pytest.fixture
def make_bed() -> Iterator[Callable[..., Testbed]]:
    """Return a function that brings up a bed (options as `Testbed.up`); it ends with the test."""
    require_hosts()
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Testbed:
            return stack.enter_context(Testbed.up(**options))

        yield make
