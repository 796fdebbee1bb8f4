"""The evidence as `evidence.json` keeps it: a verdict can be judged from it again, by later rules too."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.states import State
from orchestrator.verdict.evidence import HostEnd, RankEnd


def evidence_document(ending: State, reason: str, hosts: tuple[HostEnd, ...]) -> dict[str, Any]:
    """Return what `judge` was given; times are epoch seconds of the supervisor's clock."""
    return {"ending": ending, "reason": reason, "hosts": [asdict(host) for host in hosts]}


def evidence_from(document: dict[str, Any]) -> tuple[State, str, tuple[HostEnd, ...]]:
    """Read back what evidence_document returned.

    Raises:
        KeyError, TypeError, ValueError: it is none of this version.
    """
    hosts = []
    for entry in document["hosts"]:
        ranks = tuple(RankEnd(**rank) for rank in entry["ranks"])
        hosts.append(HostEnd(**entry | {"ranks": ranks}))
    return State(document["ending"]), str(document["reason"]), tuple(hosts)
