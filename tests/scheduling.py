"""Which test worker runs what, with pytest-xdist 3.8.

Its own groups are marks that it passes on as the end of `Item._nodeid`; pytest 9.2 makes an item's id from
another attribute, so they are lost. By file, it begins with the files of most tests: not the longest ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

_FOLDERS = ["tests/train/", "tests/differential/", "tests/unit/", "tests/contract/", "tests/testbed/"]
_ONE_BY_ONE = "tests/contract/"


def place(node_id: str) -> int:
    """Return where in the line of all units a test stands: trainings first, real hosts last.

    The cluster's own tests are one long file, which the workers that take from the end begin with.
    """
    return next((i for i, folder in enumerate(_FOLDERS) if node_id.startswith(folder)), 2)


def unit(node_id: str) -> str:
    """Return what a test is run together with: its file, whose fixtures are then made once.

    Tests of the contract share nothing but beds, of which every worker has its own.
    """
    return node_id if node_id.startswith(_ONE_BY_ONE) else node_id.split("::", 1)[0]


class BothEnds(LoadScopeScheduling):
    """The first worker takes units from the front of the line, the others from its end.

    So one training runs at a time, which can use every core, beside tests that mostly wait for ssh and Slurm,
    until the workers meet among the short ones.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Put this worker's next unit where the scheduler takes it from: at the front."""
        end = min if node is self.nodes[0] else max
        self.workqueue.move_to_end(end(self.workqueue, key=place), last=False)
        super()._assign_work_unit(node)
