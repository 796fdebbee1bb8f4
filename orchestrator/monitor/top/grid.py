"""Where each host is in the grid: as names where there is room, else as single signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.monitor.top.draw import Row
    from orchestrator.monitor.top.snapshot import HostView, Mark

_LONGEST_NAME = 24


@dataclass(frozen=True, slots=True)
class Layout:
    """A grid of `columns` cells, each `cell` characters wide; `label` characters on the left number its rows.

    Attributes:
        name: characters of a host's name in a cell; 0 where only its sign is shown.
    """

    columns: int
    cell: int
    label: int
    name: int

    def rows(self, count: int) -> int:
        """Return how many rows that many hosts take."""
        return -(-count // self.columns)


def layout(hosts: Sequence[HostView], width: int, height: int) -> Layout:
    """Return the roomiest grid in which all hosts fit, or the tightest one, to be scrolled."""
    count = max(1, len(hosts))
    name = min(_LONGEST_NAME, max((len(host.name) for host in hosts), default=1))
    named = name + 2 + 5 + 1  # sign, name, ` 100%`, gap
    label = len(str(count)) + 1
    choices = [Layout(max(1, width // named), named, 0, name)]
    choices += [Layout(max(1, (width - label) // cell), cell, label, 0) for cell in (2, 1)]
    return next((one for one in choices if one.rows(count) <= height and one.cell <= width), choices[-1])


def grid_row(hosts: Sequence[HostView], how: Layout, row: int, selected: int) -> Row:
    """Return one row of the grid; neighbours that look alike are one piece."""
    first = row * how.columns
    pieces: Row = [(f"{first:>{how.label - 1}} ", "dim")] if how.label else []
    for index, host in enumerate(hosts[first : first + how.columns], first):
        style = host.mark.colour + (" bold" if host.mark.is_problem else "")
        if index == selected:
            style += " reverse"
        text = _cell(host, how)
        if pieces and pieces[-1][1] == style and not how.name:
            pieces[-1] = (pieces[-1][0] + text, style)
        else:
            pieces.append((text, style))
    return pieces


def _cell(host: HostView, how: Layout) -> str:
    if not how.name:
        return host.mark.sign.ljust(how.cell)
    name = host.name if len(host.name) <= how.name else "…" + host.name[1 - how.name :]
    busy = "" if host.busy is None or host.mark.is_over else f"{host.busy * 100:.0f}%"
    return f"{host.mark.sign} {name:<{how.name}} {busy:>4} "


def legend(counts: Mapping[Mark, int], width: int) -> str:
    """Return how many hosts have each mark, in words where there is room."""
    words = "  ".join(f"{mark.sign} {count} {mark.word}" for mark, count in counts.items())
    return (
        words if len(words) <= width else "  ".join(f"{mark.sign} {count}" for mark, count in counts.items())
    )


def host_words(host: HostView) -> str:
    """Return what is known of one host, in a line."""
    ranks = f"ranks {host.ranks[0]}-{host.ranks[-1]}" if len(host.ranks) > 1 else f"rank {host.ranks[0]}"
    parts = [host.mark.word, *([host.note] if host.note else []), ranks]
    figures = [] if host.busy is None else [f"busy {host.busy * 100:.0f} %"]
    figures += [] if host.temperature is None else [f"{host.temperature:.0f} °C"]
    figures += [] if host.memory is None else [f"memory {host.memory * 100:.0f} %"]
    parts += [] if host.mark.is_over else figures
    return f"{host.name}: {', '.join(parts)}"


def matching(hosts: Sequence[HostView], words: str) -> tuple[HostView, ...]:
    """Return the hosts a filter means: its words are parts of names, or states; all of them if it is empty.

    `slow failed` shows hosts that are either; `rank 13` or `rank:13` the host of that rank.
    """
    wanted = words.lower().replace("rank ", "rank:").split()
    if not wanted:
        return tuple(hosts)
    return tuple(host for host in hosts if any(_means(word, host) for word in wanted))


def _means(word: str, host: HostView) -> bool:
    head, colon, number = word.partition(":")
    if head == "rank" and colon:
        return number.isdigit() and int(number) in host.ranks
    return word in host.name.lower() or word == host.mark.word or (word == "problem" and host.mark.is_problem)
