"""Tests are shared out so that module fixtures are made once and one training runs at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from xdist.remote import Producer

from tests.scheduling import BothEnds, place, unit

if TYPE_CHECKING:
    from collections.abc import Sequence

TESTS = [
    *(f"tests/contract/test_c.py::test_1[{name}]" for name in ("local", "pdsh", "ssh", "slurm")),
    *(f"tests/train/test_{name}.py::test_{i}" for name in "ab" for i in range(3)),
    *(f"tests/unit/test_u.py::test_{i}" for i in range(5)),
]


class Worker:
    """As much of xdist's WorkerController as a scheduler sees; runs what it is sent at once, and says so."""

    shutting_down = False

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def shared_out(count: int = 2) -> list[list[str]]:
    """Return the tests of workers that take turns."""
    config = SimpleNamespace(option=SimpleNamespace(), getvalue=lambda _: [f"{count}*popen"], rootpath=None)
    scheduler = BothEnds(config, Producer("", enabled=False))
    workers = [Worker(f"gw{number}") for number in range(count)]
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, TESTS)
    scheduler.schedule()
    done = [0] * count
    while scheduler.has_pending:
        for i, worker in enumerate(workers):
            if done[i] < len(worker.sent):
                scheduler.mark_test_complete(worker, worker.sent[done[i]])
                done[i] += 1
    return [[TESTS[index] for index in worker.sent] for worker in workers]


def test_one_worker_has_the_trainings_and_the_other_the_hosts():
    first, second = shared_out()
    assert [name.split("/")[1] for name in first[:6]] == ["train"] * 6
    assert [name.split("/")[1] for name in second[:2]] == ["contract"] * 2
    assert sorted(first + second) == sorted(TESTS)


def test_two_of_three_have_the_hosts():
    first, *others = shared_out(3)
    assert [name.split("/")[1] for name in first[:6]] == ["train"] * 6
    assert [other[0].split("/")[1] for other in others] == ["contract"] * 2
    assert sorted([*first, *others[0], *others[1]]) == sorted(TESTS)


def test_a_file_is_one_workers():
    first, second = shared_out()
    assert not {unit(name) for name in first} & {unit(name) for name in second}


@pytest.mark.parametrize("name", ["tests/new/test_x.py::test", "tests/unit/test_x.py::test"])
def test_a_folder_that_nobody_has_thought_of_stands_in_the_middle(name):
    assert place("tests/train/test_x.py::test") < place(name) < place("tests/contract/test_x.py::test")
