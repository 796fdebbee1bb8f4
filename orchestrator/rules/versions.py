"""Rules about the version of DeepSpeed that the ranks import."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.configs import versions
from orchestrator.configs.versions import version_numbers
from orchestrator.errors import Problem
from orchestrator.rules.facts import FROZEN, HPZ, QGZ, QWZ, rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.rules.facts import Facts

_WANTED = "0.19.8"


class _Fixed(NamedTuple):
    """A bug: the version that fixed it, whom it concerns, and what it does."""

    version: str
    concerns: Callable[[Facts], bool]
    what: str


_FIXED = (
    _Fixed("0.13.2", lambda f: bool(f.active(QGZ)), "qgZ mixes sizes on odd numbers of hosts (#5054)"),
    _Fixed("0.13.5", lambda f: bool(f.active(HPZ)), "hpZ has a race that ruins the loss (#5059)"),
    _Fixed("0.18.3", lambda f: bool(f.active(HPZ)), "hpZ trains on stale weights after a resume (#7606)"),
    _Fixed(
        "0.19.5",
        lambda f: bool(f.active(HPZ)) and f.pool.world_size >= 2048,
        "hpZ raises an IndexError in large runs (#6659)",
    ),
    _Fixed(
        "0.19.6",
        lambda f: bool(f.active(QWZ)) and f.precision == "bf16",
        "qwZ crashes with bf16 (#7775)",
    ),
    _Fixed(
        "0.19.8",
        lambda f: f.stage == 3 and f.device == "cpu",
        "ZeRO-3 on CPUs gathers weights that have not arrived (#8539)",
    ),
)


@rule("removed-key", "error", guess=lambda facts: facts.deepspeed is None)
def removed_key(facts: Facts) -> Iterator[Problem]:
    """DeepSpeed refuses keys that it no longer has.

    Source: the table in `orchestrator/configs/versions.py`, for the version that the ranks import. Where that
    is not known, it is a warning for the newest one.
    """
    return versions.removed(facts.config, facts.deepspeed, partial(facts.where, ""))


@rule("renamed-key", "warning")
def renamed_key(facts: Facts) -> Iterator[Problem]:
    """Keys with an old name, or that a newer DeepSpeed refuses, should be written as it reads them.

    Source: as removed-key.
    """
    return versions.changing(facts.config, facts.deepspeed, partial(facts.where, ""))


@rule("old-deepspeed", "warning")
def old_deepspeed(facts: Facts) -> Iterator[Problem]:
    """ZeRO++ wants DeepSpeed 0.19.8: what is older has bugs that cost a run.

    Source: DeepSpeed #5056, #5216, #7707, #8210, #8215, #8539, by the version that has the fix.
    """
    if facts.deepspeed is None or version_numbers(facts.deepspeed) >= version_numbers(_WANTED):
        return
    here = version_numbers(facts.deepspeed)
    bugs = [bug.what for bug in _FIXED if here < version_numbers(bug.version) and bug.concerns(facts)]
    if bugs or facts.active(HPZ, QWZ, QGZ, FROZEN):
        what = (
            f"in DeepSpeed {facts.deepspeed} {'; '.join(bugs)}" if bugs else "ZeRO++ wants a newer DeepSpeed"
        )
        where = "train.python" if facts.spec.train.python else "deepspeed"
        yield Problem(what, where, facts.deepspeed, f"install deepspeed {_WANTED} or newer")
