"""Rules about where checkpoints are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.rules.facts import rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.rules.facts import Facts


@rule("retention-shared-disk", "warning")
def retention_shared_disk(facts: Facts) -> Iterator[Problem]:
    """What hosts save on their own disks, the supervisor cannot see, and so never deletes.

    Source: our own `supervisor/keeping.py`, which deletes on the machine that submits.
    """
    keep = facts.spec.train.keep_checkpoints
    if keep is not None and facts.spec.cluster.shared_disk is False:
        what = "old checkpoints are deleted on this machine only: on the hosts' own disks all of them stay"
        fix = "put checkpoint_dir on a disk that hosts and this machine share, or have the script delete them"
        yield Problem(what, "train.keep_checkpoints", "cluster.shared_disk is false", fix)
