"""Sites: the same tests over every backend."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.laptop import far_laptop, laptop, slurm_laptop
from tests.contract.product import Site
from tests.testbed import Testbed
from tests.testbed.accounts import ORDINARY
from tests.testbed.fixtures import require_hosts, require_slurm

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["far_laptop", "laptop", "slurm_laptop"]

REMOTE = ["pdsh", "ssh"]
SLURM = pytest.param("slurm", marks=pytest.mark.testbed)
ROUNDS = {
    "site": ["local", *REMOTE, SLURM],
    "detached": ["local", *REMOTE],
    "remote": REMOTE,
    "apart": REMOTE,
    "difficult": REMOTE,
    "ordinary": REMOTE,
}
"""The backends on which each fixture's tests run."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once per backend that its site can have."""
    for name, backends in ROUNDS.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, backends, indirect=True)


def require_backend(backend: str) -> None:
    """Skip (or fail, where CI asks for it) when this machine has no hosts or lacks the backend's tool."""
    if backend == "slurm":
        require_slurm()
    elif backend != "local":
        require_hosts()
    if backend == "pdsh" and shutil.which("pdsh") is None:
        pytest.skip("pdsh is not installed")
    if backend == "ssh":
        pytest.importorskip("paramiko")


def make_site(backend: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    require_backend(backend)
    bed = {"local": None, "slurm": "slurm_bed"}.get(backend, "bed")
    site = Site(backend, folder, None if bed is None else request.getfixturevalue(bed))
    yield site
    site.clear()


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Two hosts of two slots on the backend of this round."""
    yield from make_site(request.param, tmp_path, request)


@pytest.fixture
def detached(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """As `site`, where the hosts outlive the supervisor: not on Slurm, whose job ends with its script."""
    yield from make_site(request.param, tmp_path, request)


@pytest.fixture
def slurm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Two hosts of two slots of a Slurm cluster."""
    yield from make_site("slurm", tmp_path, request)


@pytest.fixture
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Two real hosts of two slots on the backend of this round."""
    yield from make_site(request.param, tmp_path, request)


@pytest.fixture
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Two simulated hosts, for what is the same on every backend."""
    yield from make_site("local", tmp_path, request)


@pytest.fixture
def pdsh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Two real hosts through pdsh, for what is the same on every backend with real hosts."""
    yield from make_site("pdsh", tmp_path, request)


@pytest.fixture(scope="session")
def apart_bed() -> Iterator[tuple[Testbed, Path]]:
    """Two hosts that each see an empty folder of their own where the submit side has its runs."""
    require_hosts()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="orchestrate-apart-"))
        bed = stack.enter_context(Testbed.up(nodes=2, slots=2, private_dirs=(made,)))
        yield bed, Path(made)


@pytest.fixture
def apart(request: pytest.FixtureRequest, apart_bed: tuple[Testbed, Path], tmp_path: Path) -> Iterator[Site]:
    """Two hosts that do not share the run directory; they share `Site.shared`, where reports go."""
    require_backend(request.param)
    bed, private = apart_bed
    folder = private / tmp_path.name
    folder.mkdir()
    site = Site(request.param, folder, bed, shared=tmp_path)
    yield site
    site.clear()


@pytest.fixture(scope="session")
def difficult_bed() -> Iterator[Testbed]:
    """Two hosts with all that makes ssh hard at once: jump host, banner, noise, a port."""
    require_hosts()
    with Testbed.up(nodes=2, slots=2, jump=True, banner=True, chatty=True, ports={1: 2222, 2: 2022}) as bed:
        yield bed


@pytest.fixture
def difficult(request: pytest.FixtureRequest, difficult_bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    """Two hosts, the second behind the first, with noise around every connection."""
    require_backend(request.param)
    site = Site(request.param, tmp_path, difficult_bed)
    yield site
    site.clear()


@pytest.fixture
def ordinary(request: pytest.FixtureRequest, bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    """Two real hosts and an ordinary user who submits from a folder in the home that hosts share."""
    require_backend(request.param)
    user = bed.users[ORDINARY]
    folder = user.home / tmp_path.name
    folder.mkdir()
    os.chown(folder, user.uid, user.uid)
    site = Site(request.param, folder, bed, ORDINARY)
    yield site
    site.clear()
