"""Leave bad hosts out of a job: the filter that does it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import FilterError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.job import ClusterSpec

_SPECIAL = "@:,"


def filter_without(cluster: ClusterSpec, bad: Sequence[str]) -> tuple[str, str]:
    """Return the key of section `cluster` that leaves hosts out, and its new value.

    Where the job file includes hosts, they are taken out of that filter: only one of the two may be given.

    Raises:
        FilterError: a name that DeepSpeed's filters cannot say, or nothing would be left.
    """
    unsaid = [name for name in bad if any(letter in name for letter in _SPECIAL)]
    if unsaid:
        fix = "take it out of the hostfile"
        raise FilterError(Problem("a filter cannot name this host", "cluster.exclude", unsaid[0], fix))
    if cluster.include:
        kept = [spec for spec in cluster.include.split("@") if spec.partition(":")[0] not in bad]
        if not kept:
            raise FilterError(Problem("no host would be left", "cluster.include", cluster.include))
        return "include", "@".join(kept)
    given = (cluster.exclude or "").split("@")
    others = [spec for spec in given if spec and spec.partition(":")[0] not in bad]
    return "exclude", "@".join([*others, *bad])
