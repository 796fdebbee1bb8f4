"""Which logs of a run are wanted, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.errors import CommandError, OrchestratorError, Problem
from orchestrator.rundir import read_json

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir, RunDir

KINDS = ("log", "out", "err")
_STRIDE = 1 << 32  # more than one attempt has logs
_LATER = 1 << 31
_NAMED = 8  # hosts, in a message


@dataclass(frozen=True)
class Selection:
    """Which lines are wanted.

    Attributes:
        hosts: names; none means all.
        ranks: None means all, and the hosts' own logs.
        pattern: found in every line wanted.
        kinds: of `log` (a host's own), `out`, `err`; none means all.
        since, until: epoch seconds of this machine's clock.
        tail: how many lines from the end; of those that the rest of the selection leaves.
    """

    hosts: frozenset[str] = frozenset()
    ranks: frozenset[int] | None = None
    pattern: re.Pattern[str] | None = None
    kinds: frozenset[str] = frozenset()
    since: float | None = None
    until: float | None = None
    tail: int | None = None

    @property
    def bounded(self) -> bool:
        """Tell whether times decide on what is shown."""
        return self.since is not None or self.until is not None


@dataclass(frozen=True)
class Stream:
    """One log: what a host's own processes, or one rank, wrote to one of its outputs.

    Attributes:
        place: its place in the run's plan.
        attempt: number of the attempt.
        host, host_index: whose it is.
        rank: None for a host's own log.
        kind: one of KINDS.
        path: the log.
        index: the host's list of when its logs grew (`HOST.times`), where there is one.
        clock: seconds by which the host's clock is ahead of ours.
    """

    place: int
    attempt: int
    host: str
    host_index: int
    rank: int | None
    kind: str
    path: Path
    index: Path
    clock: float = 0.0

    @property
    def name(self) -> str:
        """Return what the index calls it."""
        return "log" if self.rank is None else f"{self.rank}.{self.kind}"

    @property
    def turn(self) -> int:
        """Return what decides between lines of the same time: hosts react to what their ranks say."""
        return self.place + _LATER if self.rank is None else self.place

    @property
    def prefix(self) -> str:
        """Return what its lines begin with on the screen."""
        return self.host if self.rank is None else f"{self.host}:{self.rank}"


def chosen_attempts(run: RunDir, wanted: int | str | None) -> list[AttemptDir]:
    """Return the attempts to show.

    Args:
        run: the run.
        wanted: a number, `all`, or None for the last.

    Raises:
        CommandError: there is no such attempt.
    """
    attempts = run.attempts()
    if wanted is None and not attempts:
        raise OrchestratorError(
            Problem("the run has no logs yet: nothing of it has been started", run.run_id)
        )
    if wanted == "all":
        return attempts
    if wanted is None:
        return attempts[-1:]
    found = [attempt for attempt in attempts if attempt.number == wanted]
    if not found:
        numbers = ", ".join(str(attempt.number) for attempt in attempts) or "none"
        raise CommandError(Problem("no such attempt", "--attempt", str(wanted), f"there are: {numbers}"))
    return found


def streams_of(plan: LaunchPlan, attempt: AttemptDir, selection: Selection) -> list[Stream]:
    """Return the logs that one attempt can have, in the order of its hosts and ranks."""
    clocks = clock_offsets(attempt)
    return [
        _stream(attempt, host, rank, kind, clocks.get(host.name, 0.0))
        for host in plan.hosts
        if not selection.hosts or host.name in selection.hosts
        for rank, kind in _wanted(host, selection)
    ]


def clock_offsets(attempt: AttemptDir) -> dict[str, float]:
    """Return by how many seconds each host's clock is ahead of ours, where that is known."""
    clocks = read_json(attempt.clocks_file) or {}
    return {host: float(told.get("offset", 0.0)) for host, told in clocks.items()}


def refuse_unknown(
    plans: Sequence[LaunchPlan],
    hosts: frozenset[str],
    ranks: frozenset[int] | None,
    others: Mapping[int, LaunchPlan] | None = None,
) -> None:
    """Refuse hosts and ranks that a run does not have, and a rank that is on none of the hosts.

    Args:
        plans: of the attempts that are looked at: on Slurm each has its own hosts.
        hosts: their names; none means all.
        ranks: None means all.
        others: the plans of all attempts, by number.

    Raises:
        CommandError: no such host or rank.
    """
    unknown = hosts - {host.name for plan in plans for host in plan.hosts}
    if unknown:
        raise CommandError(_no_such_host(plans[-1], min(unknown), others or {}))
    most = max(plan.world_size for plan in plans)
    if ranks and max(ranks) >= most:
        fix = f"ranks are 0 to {most - 1}"
        raise CommandError(Problem("no such rank in this run", "--rank", str(max(ranks)), fix))
    there = [host for plan in plans for host in plan.hosts if ranks and ranks & set(host.ranks)]
    if ranks and hosts and not any(host.name in hosts for host in there):
        what, fix = f"is not on {', '.join(sorted(hosts)[:_NAMED])}", f"it is on {there[-1].name}"
        raise CommandError(Problem(what, "--rank", str(min(ranks)), fix))


def _no_such_host(plan: LaunchPlan, name: str, others: Mapping[int, LaunchPlan]) -> Problem:
    """Say which hosts there are; one that was lost was in an earlier attempt."""
    earlier = [number for number, plan in others.items() if name in {host.name for host in plan.hosts}]
    if earlier:
        return Problem("no such host in this attempt", "--host", name, f"add --attempt {earlier[-1]}")
    more = ", …" * (len(plan.hosts) > _NAMED)
    names = ", ".join(host.name for host in plan.hosts[:_NAMED]) + more
    return Problem("no such host in this run", "--host", name, f"it has: {names}")


def _wanted(host: PlannedHost, selection: Selection) -> Iterator[tuple[int | None, str]]:
    kinds = [kind for kind in KINDS if not selection.kinds or kind in selection.kinds]
    if selection.ranks is None and "log" in kinds:
        yield None, "log"
    for rank in host.ranks:
        if selection.ranks is None or rank in selection.ranks:
            yield from ((rank, kind) for kind in kinds if kind != "log")


def _stream(attempt: AttemptDir, host: PlannedHost, rank: int | None, kind: str, clock: float) -> Stream:
    stem = host.file_name if rank is None else f"{host.file_name}.rank{rank}"
    number = 0 if rank is None else 2 * rank + (1 if kind == "out" else 2) - 2 * host.first_rank
    return Stream(
        place=attempt.number * _STRIDE + host.first_rank * 2 + host.index + number,
        attempt=attempt.number,
        host=host.name,
        host_index=host.index,
        rank=rank,
        kind=kind,
        path=attempt.logs / f"{stem}.{kind}",
        index=attempt.logs / f"{host.file_name}.times",
        clock=clock,
    )
