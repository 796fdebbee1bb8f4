"""Ranks that may not be traced leave their stacks when a run that hangs is ended."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.monitor.stacks import where

if TYPE_CHECKING:
    from tests.contract.product import Site

HANGING = Path(__file__).with_name("hanging_script.py")
REFUSES = "#!/bin/sh\necho 'Permission Denied: Try running again with elevated permissions' >&2\nexit 1\n"

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def python_that_cannot_trace(folder: Path) -> str:
    """Return a Python with our packages, beside which py-spy does what it does where ptrace is forbidden."""
    settings = Path(sys.prefix) / "pyvenv.cfg"
    if not settings.exists():
        pytest.skip("the tests do not run in a virtual environment")
    (folder / "bin").mkdir(parents=True)
    shutil.copy(settings, folder)
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / "bin/python").symlink_to(Path(sys.executable))
    (folder / "bin/py-spy").write_text(REFUSES)
    (folder / "bin/py-spy").chmod(0o755)
    return str(folder / "bin/python")


def test_a_rank_that_may_not_be_traced_leaves_its_stacks_at_the_end(local: Site) -> None:
    python = python_that_cannot_trace(local.folder / "env")
    monitor = {"sample_interval": 0.5, "hang": {"after": 3, "stop_after": 0}}
    train = {"script": str(HANGING), "args": ["--stuck", "1"], "python": python}
    run = local.submit(cluster={"slots": 1}, monitor=monitor, train=train)
    verdict = run.wait()
    assert verdict["state"] == "FAILED", run.story()
    hang = run.events("hang")[-1]  # without stacks, a rank that waits long for another one's start is one
    assert (hang["how"], hang["where"]) == ("", {}), hang
    (stacks,) = run.events("stacks")
    assert (stacks["how"], stacks["waiting"]) == ("faulthandler", [0])
    assert stacks["where"]["1"].endswith(" next_batch")
    dumps = run.path / "attempt-1/dumps"
    places = {rank: where((dumps / f"host-{rank}.rank{rank}.txt").read_text()) for rank in (0, 1)}
    assert {rank: place.waiting for rank, place in places.items()} == {0: True, 1: False}
    assert (dumps / "host-1.rank1.txt").read_text().startswith("# pid ")
    assert {rank["signal"] for rank in run.rank_ends()} == {6}
    assert (set(run.roles().values()), verdict["candidates"]) == ({"victim"}, [])
    run.see_nothing_left()
