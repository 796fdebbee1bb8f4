"""Hosts, ranks, groups and batch on the screen; nothing is done for each rank, and little for each host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.forecast.words import columns, number
from orchestrator.hosts.ranges import fold_names, fold_numbers
from orchestrator.hosts.topology import rank_map
from orchestrator.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from orchestrator.hosts import Host, HostPool

_SHOWN = 4  # hosts at the top of the rank map, before those that are left out and the last one
_KINDS = 3  # lines of hosts with the same slots
_NAMES = 60  # characters of a folded list of names
_LISTED = 42  # characters up to which the ranks of groups are listed one by one


def hosts_lines(pool: HostPool, hpz: int, *, asked: bool = False) -> Iterator[str]:
    """Yield which hosts are used, which ranks run there, and the hpZ groups of each.

    Args:
        pool: the hosts after filters.
        hpz: ranks in an hpZ group; 1 is off.
        asked: Slurm has not given these hosts yet: only how many they are is known.
    """
    yield from _kinds(pool, asked=asked)
    ranks = rank_map(pool)
    shown = _shown(len(pool.hosts))
    head = ["host", "ranks", *(["hpZ groups"] if hpz > 1 else [])]
    rows = [head]
    for index in shown:
        if index is None:
            rows.append([f"… {number(len(pool.hosts) - _SHOWN - 1)} more", "…"])
            continue
        mine = ranks.ranks(index)
        row = [pool.hosts[index].name, _span(mine)]
        rows.append([*row, groups_on(mine, hpz, ranks.world_size)] if hpz > 1 else row)
    yield from columns(rows)


def _shown(hosts: int) -> list[int | None]:
    """Return the indexes of the hosts to show; None stands for those that are left out."""
    if hosts <= _SHOWN + 2:
        return list(range(hosts))
    return [*range(_SHOWN), None, hosts - 1]


def _kinds(pool: HostPool, *, asked: bool) -> Iterator[str]:
    """Yield a line for the hosts that have the same slots, the first kind first."""
    kinds: dict[tuple[int, ...], list[Host]] = {}
    for host in pool.hosts:
        kinds.setdefault(host.slots, []).append(host)
    for slots, hosts in list(kinds.items())[:_KINDS]:
        head = f"{counted(len(hosts), 'host')} x {counted(len(slots), 'slot')} ({fold_numbers(slots)})"
        master = f", master {hosts[0].name}" if hosts[0] is pool.hosts[0] and len(pool.hosts) > 1 else ""
        yield f"{head}, named when Slurm gives them" if asked else f"{head}: {_names(hosts)}{master}"
    if len(kinds) > _KINDS:
        rest = sum(map(len, list(kinds.values())[_KINDS:]))
        yield f"… and {counted(rest, 'host')} with other slots; `orchestrate hosts` shows all"


def _names(hosts: list[Host]) -> str:
    folded = fold_names(host.name for host in hosts)
    if len(folded) <= _NAMES:
        return folded
    return f"{', '.join(host.name for host in hosts[:2])}, … {hosts[-1].name}"


def _span(ranks: range) -> str:
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"


def groups_on(ranks: range, size: int, world_size: int) -> str:
    """Return the hpZ groups of one host, as `[0 1 2 3][4 5 6 7]`, long ones as `[0-7][8-15]`.

    A group that begins on the host before, or goes on on the next, has `…` in place of its bracket.

    Args:
        ranks: the ranks of the host.
        size: ranks in a group.
        world_size: number of all ranks; the last group may be short where `size` does not divide it.
    """
    starts = range(ranks[0] - ranks[0] % size, ranks[-1] + 1, size)
    groups = [range(start, min(start + size, world_size)) for start in starts]
    listed = "".join(_group(group, ranks, listed=True) for group in groups)
    if len(listed) <= _LISTED:
        return listed
    spans = [_group(group, ranks, listed=False) for group in groups]
    return "".join(spans) if len(spans) <= _SHOWN else f"{''.join(spans[:2])} … {spans[-1]}"


def _group(group: range, ranks: range, *, listed: bool) -> str:
    here = range(max(group[0], ranks[0]), min(group[-1], ranks[-1]) + 1)
    text = " ".join(map(str, here)) if listed else _span(here)
    opened = "[" if group[0] >= ranks[0] else "…"
    return f"{opened}{text}{']' if group[-1] <= ranks[-1] else '…'}"


def groups_line(pool: HostPool, hpz: int, data_parallel: int | None) -> str:
    """Return how the ranks are grouped, in words."""
    world = pool.world_size
    parts = []
    if data_parallel is not None:
        every = "all ranks" if data_parallel == world else f"{number(data_parallel)} groups of ranks"
        parts.append(f"data parallel over {every}")
    if hpz > 1:
        groups = -(-world // hpz)
        per_host = len(pool.hosts[0].slots) // hpz
        where = "" if world % hpz or not per_host else f", {number(per_host)} on each host"
        straddles = any(first % hpz for first in rank_map(pool).first_ranks)
        parts.append(f"{counted(groups, 'hpZ group')} of {hpz}{', across hosts' if straddles else where}")
    return "; ".join(parts)


def batch_line(config: Mapping[str, Any], data_parallel: int | None, sequence: int | None) -> str:
    """Return the batch arithmetic: micro-batch x accumulation x ranks = global.

    Args:
        config: DeepSpeed's configuration after its batch sizes were resolved.
        data_parallel: ranks that each take their own samples.
        sequence: tokens of a sample, if known.
    """
    micro = config.get("train_micro_batch_size_per_gpu")
    steps = config.get("gradient_accumulation_steps")
    total = config.get("train_batch_size")
    if not isinstance(total, int) or not isinstance(micro, int) or not isinstance(steps, int):
        told = {"micro-batch": micro, "accumulation": steps, "global": total}
        parts = [f"{name} {value}" for name, value in told.items() if value is not None]
        return f"{', '.join(parts)}: the script decides" if parts else "the script decides"
    ranks = f" x {counted(data_parallel, 'rank')}" if data_parallel is not None else ""
    taken = counted(steps, "accumulation step")
    line = f"micro-batch {number(micro)} x {taken}{ranks} = {number(total)} samples"
    return f"{line}, {number(total * sequence)} tokens" if sequence else line
