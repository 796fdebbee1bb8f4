"""Pytest fixtures: `bed`, `slurm_bed` and `accounting_bed` for the session, `make_bed` for any other kind."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.testbed.bed import Testbed
from tests.testbed.requirements import missing, missing_slurm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def require_hosts() -> None:
    """Skip where no testbed can run; fail instead when ORCH_REQUIRE lists `ssh`, as CI does."""
    require("ssh", missing())


def require_slurm(*, accounting: bool = False) -> None:
    """Skip where no Slurm can run on a testbed; fail instead when ORCH_REQUIRE lists `slurm`, as CI does."""
    require("slurm", missing() or missing_slurm(accounting=accounting))


def require(kind: str, why: str | None) -> None:
    """Skip for a reason, if there is one; fail instead when ORCH_REQUIRE lists `kind`, as CI does."""
    if why is None:
        return
    if kind in os.environ.get("ORCH_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"ORCH_REQUIRE asks for {kind}, but {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def bed() -> Iterator[Testbed]:
    """Two hosts of two slots, with an ordinary user; leave cables plugged and disks shared behind you."""
    require_hosts()
    with Testbed.up(nodes=2, slots=2, ordinary_user=True) as made:
        yield made


@pytest.fixture(scope="session")
def slurm_bed() -> Iterator[Testbed]:
    """A Slurm cluster of two hosts with two GPUs each and an ordinary user; leave no job behind you."""
    require_slurm()
    with Testbed.up(nodes=2, slots=2, ordinary_user=True, slurm=True) as made:
        yield made


@pytest.fixture(scope="session")
def accounting_bed() -> Iterator[Testbed]:
    """As `slurm_bed`, with slurmdbd: `sacct` answers, and every user has the account `research` alone."""
    require_slurm(accounting=True)
    with Testbed.up(nodes=2, slots=2, ordinary_user=True, slurm=True, accounting=True) as made:
        yield made


@pytest.fixture
def make_bed() -> Iterator[Callable[..., Testbed]]:
    """Return a function that brings up a bed (options as `Testbed.up`); it ends with the test."""
    require_hosts()
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Testbed:
            if options.get("slurm"):
                require_slurm(accounting=options.get("accounting", False))
            return stack.enter_context(Testbed.up(**options))

        yield make
