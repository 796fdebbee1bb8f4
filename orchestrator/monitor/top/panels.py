"""The parts of the screen as Textual widgets: each keeps values and draws the lines that are in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from orchestrator.monitor.top.draw import Row, curve_names, curve_rows
from orchestrator.monitor.top.grid import grid_row, layout, legend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual import events

    from orchestrator.monitor.top.snapshot import Curve, HostView, Mark


def strip_of(row: Row, base: Style, width: int, left: int = 0) -> Strip:
    """Return a row as Textual draws it: from column `left` on, `width` characters wide."""
    strip = Strip([Segment(text, base + Style.parse(style)) for text, style in row])
    return strip.crop_extend(left, left + width, base)


class Fixed(Widget):
    """Some rows at the top left, cut where the widget ends."""

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._rows: list[Row] = []

    def show(self, rows: list[Row]) -> None:
        """Show these rows from now on."""
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        row = self._rows[y] if y < len(self._rows) else []
        return strip_of(row, self.rich_style, self.size.width)


class Lines(ScrollView, can_focus=True):
    """Rows to scroll through; whoever is at the end stays at the end when more come.

    Args:
        id: of the widget.
        tail: whether the end is what is looked at first.
    """

    def __init__(self, id: str, *, tail: bool) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._rows: list[Row] = []
        self._tail = tail
        self.topic = ""

    def show(self, rows: list[Row], topic: str = "") -> None:
        """Show these rows; another topic begins at its own end."""
        if rows == self._rows and topic == self.topic:
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y or topic != self.topic
        self._rows, self.topic = rows, topic
        width = max((sum(len(text) for text, _ in row) for row in rows), default=0)
        self.virtual_size = Size(width, len(rows))
        if self._tail and at_end:
            self.scroll_end(animate=False, force=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        left, top = self.scroll_offset
        row = self._rows[top + y] if top + y < len(self._rows) else []
        return strip_of(row, self.rich_style, self.size.width, left)


class Curves(Widget):
    """Curves of what the run tells, as many as fit."""

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._curves: Mapping[str, Curve] = {}
        self._first = 0
        self._zoomed = False
        self._drawn: tuple[Size, list[Row]] = (Size(0, 0), [])

    def show(self, curves: Mapping[str, Curve]) -> None:
        """Show these curves from now on."""
        if curves != self._curves:
            self._curves = curves
            self._redraw()

    def turn(self) -> None:
        """Begin with the next curve."""
        self._first = (self._first + 1) % max(1, len(curve_names(self._curves)))
        self._redraw()

    def zoom(self) -> None:
        """Show the last steps only, or all of them again."""
        self._zoomed = not self._zoomed
        self.border_subtitle = "last steps · z all" if self._zoomed else "m next · z zoom"
        self._redraw()

    def _redraw(self) -> None:
        self._drawn = (Size(0, 0), [])
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Draw one line; the curves are made anew only when they or the size have changed."""
        if self._drawn[0] != self.size:
            rows = curve_rows(self._curves, self._first, *self.size, zoomed=self._zoomed)
            self._drawn = (self.size, rows)
        rows = self._drawn[1]
        return strip_of(rows[y] if y < len(rows) else [], self.rich_style, self.size.width)


class HostGrid(ScrollView, can_focus=True):
    """All hosts, coloured and signed by their state; one of them is selected."""

    BINDINGS: ClassVar = [
        Binding("up,k", "move(0, -1)", "up", show=False),
        Binding("down,j", "move(0, 1)", "down", show=False),
        Binding("left", "move(-1, 0)", "left", show=False),
        Binding("right", "move(1, 0)", "right", show=False),
        Binding("home", "jump(0)", "first", show=False),
        Binding("end", "jump(-1)", "last", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
    ]

    class Selected(Message):
        """Another host is selected."""

        def __init__(self, host: str) -> None:
            super().__init__()
            self.host = host

    def __init__(self, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self.hosts: tuple[HostView, ...] = ()
        self.selected = 0
        self._counts: Mapping[Mark, int] = {}
        self._layout = layout((), 1, 1)

    @property
    def host(self) -> HostView | None:
        """Return the selected host."""
        return self.hosts[self.selected] if self.hosts else None

    def show(self, hosts: tuple[HostView, ...], counts: Mapping[Mark, int]) -> None:
        """Show these hosts; the selected one stays so, by name."""
        if hosts == self.hosts and hosts:
            return
        before = self.host
        self.hosts = hosts
        names = [host.name for host in hosts]
        self.selected = names.index(before.name) if before and before.name in names else 0
        self._counts = counts
        self._arrange()
        if self.host is not None and (before is None or before.name != self.host.name):
            self.post_message(self.Selected(self.host.name))

    def _arrange(self) -> None:
        width = max(1, self.scrollable_content_region.width)
        self.border_title = f"hosts  {legend(self._counts, self.size.width - 9)}"
        self._layout = layout(self.hosts, width, self.scrollable_content_region.height)
        self.virtual_size = Size(width, self._layout.rows(len(self.hosts)) if self.hosts else 0)
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        """Fit the grid to its new size."""
        del event
        self._arrange()
        self._into_sight()

    def select(self, index: int) -> None:
        """Select a host by its place among those shown."""
        if self.hosts and index != self.selected:
            self.selected = max(0, min(len(self.hosts) - 1, index))
            self._into_sight()
            self.refresh()
            self.post_message(self.Selected(self.hosts[self.selected].name))

    def _into_sight(self) -> None:
        row = self.selected // self._layout.columns
        self.scroll_to_region(Region(0, row, 1, 1), animate=False, force=True)

    def action_move(self, across: int, down: int) -> None:
        """Select the neighbour."""
        index = self.selected + across + down * self._layout.columns
        if 0 <= index < len(self.hosts):
            self.select(index)

    def action_jump(self, index: int) -> None:
        """Select the first (0) or the last (-1) host."""
        self.select(index % max(1, len(self.hosts)))

    def action_page(self, pages: int) -> None:
        """Select a host a page further."""
        self.select(self.selected + pages * self._layout.columns * max(1, self.size.height - 1))

    def next_problem(self) -> bool:
        """Select the next host that somebody should look at; False if there is none."""
        count = len(self.hosts)
        for step in range(1, count + 1):
            index = (self.selected + step) % count
            if self.hosts[index].mark.is_problem:
                self.select(index)
                return True
        return False

    def on_click(self, event: events.Click) -> None:
        """Select the host under the mouse."""
        how, offset = self._layout, event.get_content_offset(self)
        if offset is None or offset.x < how.label:
            return
        column, row = (offset.x - how.label) // how.cell, offset.y + self.scroll_offset.y
        index = row * how.columns + column
        if column < how.columns and index < len(self.hosts):
            self.select(index)

    def render_line(self, y: int) -> Strip:
        """Draw one row of the grid."""
        row = y + self.scroll_offset.y
        there = row < self._layout.rows(len(self.hosts)) if self.hosts else False
        pieces = grid_row(self.hosts, self._layout, row, self.selected) if there else []
        if not self.hosts and y == 0:
            pieces = [("no hosts to show", "dim")]
        return strip_of(pieces, self.rich_style, self.size.width)
