"""The application: a reader in a thread of its own, and the screen that shows what it finds."""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.containers import Horizontal
from textual.widgets import Footer, Input

from orchestrator.monitor.top import draw
from orchestrator.monitor.top.dialogs import Question, Reading
from orchestrator.monitor.top.grid import host_words, matching
from orchestrator.monitor.top.handing import Handing
from orchestrator.monitor.top.keys import KEYS, help_text
from orchestrator.monitor.top.panels import Curves, Fixed, HostGrid, Lines
from orchestrator.monitor.top.style import CSS

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from orchestrator.monitor.top.actions import Actions
    from orchestrator.monitor.top.reading import Look, Reader
    from orchestrator.monitor.top.snapshot import Snapshot

_LOOK_SECONDS = 0.15  # between looks at the run directory
_CALM_SECONDS = 1.0  # the same once the run is over
_STALE_SECONDS = 5.0  # without an answer from the disk, after which that is told
_WIDE, _HIGH = 110, 34  # from here on all parts have a place of their own


class TopApp(App[None]):
    """`orchestrate top` of one run.

    Args:
        reader: what brings the run's files.
        actions: what `c` and `d` do; both may take long and run in threads.
    """

    TITLE = "orchestrate top"
    ENABLE_COMMAND_PALETTE = False
    CSS = CSS
    BINDINGS: ClassVar = [*KEYS]

    def __init__(self, reader: Reader, actions: Actions) -> None:
        super().__init__()
        self.animation_level = "none"
        self.look: Look | None = None
        self._reader = reader
        self._actions = actions
        self._seen = time.monotonic()
        self._wake, self._over = threading.Event(), threading.Event()
        self._host = ""
        self._words = ""
        self._part = "events"
        self._stream = 0
        self._head, self._hosts, self._curves = Fixed("head"), HostGrid("hosts"), Curves("curves")
        self._chosen = Fixed("host")
        self._ranks, self._event_list = Lines("ranks", tail=False), Lines("events", tail=True)
        self._host_log, self._lower = Lines("log", tail=True), Horizontal(id="lower")
        self._filter = Input(id="filter", placeholder="part of a name, slow, failed, problem, rank:13")

    # -- the parts

    def compose(self) -> ComposeResult:
        """Make the parts."""
        yield self._head
        with Horizontal(id="upper"):
            yield self._hosts
            yield self._curves
        yield self._chosen
        with self._lower:
            yield self._ranks
            yield self._event_list
        yield self._host_log
        yield self._filter
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to read."""
        self._filter.display = False
        self._curves.border_title = "curves"
        self._curves.border_subtitle = "m next · z zoom"
        self._hosts.focus()
        self._arrange()
        self.set_interval(1.0, self._tick)
        self._hand = Handing()
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        if self.is_web:
            threading.Thread(target=self._end_with_input, daemon=True).start()

    def _end_with_input(self) -> None:
        """End when nobody can type any more: Textual's driver for browsers (8.2) would go on."""
        hung_up = select.poll()
        hung_up.register(0, select.POLLRDHUP)  # of sshd's socket; a pipe tells POLLHUP unasked
        hung_up.poll()
        self._hand(self.exit)

    def on_unmount(self) -> None:
        """Let the reader end."""
        self._over.set()
        self._wake.set()

    def on_resize(self, event: events.Resize) -> None:
        """Give every part a place of its own, or let three share one."""
        del event
        self._arrange()

    def _arrange(self) -> None:
        roomy = self.size.width >= _WIDE and self.size.height >= _HIGH
        self.screen_stack[0].set_class(roomy, "roomy")
        for name, part in self._shared().items():
            part.display = roomy or name == self._part
        self._lower.display = roomy or self._part != "log"
        self._name_parts(roomy=roomy)

    def _shared(self) -> dict[str, Lines]:
        """Return the parts that share a place on a small screen."""
        return {"events": self._event_list, "ranks": self._ranks, "log": self._host_log}

    def _name_parts(self, *, roomy: bool) -> None:
        hints = {"events": "e events", "ranks": "s slowest ranks", "log": "l log"}
        titles = {
            "events": "events",
            "ranks": "slowest ranks",
            "log": f"log of {self._host} · {self._source() or 'all'}",
        }
        for name, part in self._shared().items():
            part.border_title = titles[name]
            others = [] if roomy else [hint for other, hint in hints.items() if other != name]
            part.border_subtitle = " · ".join([*(["[ ] rank"] if name == "log" else []), *others])

    # -- reading, in its own thread: a disk that hangs must not take the screen with it

    def _read(self) -> None:
        while not self._over.is_set():
            look = self._reader.look(self._host if self._host_log.display else "")
            if not self._hand(self._show, look):
                return
            self._wake.wait(_CALM_SECONDS if look.snapshot.state.is_final else _LOOK_SECONDS)
            self._wake.clear()

    def _show(self, look: Look) -> None:
        self.look = look
        self._seen = time.monotonic()
        if self.is_running and self.screen_stack:
            self._draw()

    def _tick(self) -> None:
        """Let the clock go on, also when nothing else does."""
        if self.look is not None and self.screen_stack:
            stale = time.monotonic() - self._seen
            shown = stale if stale > _STALE_SECONDS else 0.0
            self._draw_head(self.look.snapshot, shown)

    def _draw_head(self, snapshot: Snapshot, stale: float = 0.0) -> None:
        rows = draw.header(snapshot, time.time(), self.size.width, stale)
        if self._head.styles.height is None or self._head.styles.height.value != len(rows):
            self._head.styles.height = len(rows)
        self._head.show(rows)

    def _draw(self) -> None:
        if self.look is None:
            return
        snapshot = self.look.snapshot
        self._draw_head(snapshot)
        hosts = matching(snapshot.hosts, self._words)
        self._hosts.show(hosts, snapshot.counts())
        self._draw_chosen()
        self._curves.show(snapshot.curves)
        shown = {host.name for host in hosts} if self._words else None
        ranks = [one for one in snapshot.slowest if shown is None or one.host in shown]
        self._ranks.show(draw.rank_rows(ranks, self._ranks.size.width))
        told = [one for one in snapshot.events if shown is None or not one.hosts or shown & set(one.hosts)]
        self._event_list.show(draw.event_rows(told, self._event_list.size.width))
        if self.look.log_host == self._host:
            wanted = self._source()
            lines = [line for line in self.look.log if not wanted or line.source.partition(".")[0] == wanted]
            self._host_log.show(draw.log_rows(lines, self._host), f"{self._host} {wanted}")

    def _draw_chosen(self) -> None:
        """Say all that is known of the selected host in a line."""
        host = self._hosts.host
        self._chosen.show([] if host is None else [[(f" {host_words(host)}", f"{host.mark.colour}")]])

    # -- what the user does

    def on_host_grid_selected(self, message: HostGrid.Selected) -> None:
        """Read the log of the newly selected host."""
        self._host, self._stream = message.host, 0
        self._arrange()
        self._draw_chosen()
        self._wake.set()

    def _sources(self) -> list[str]:
        host = self._hosts.host
        return ["", "log", *(map(str, host.ranks) if host else ())]

    def _source(self) -> str:
        """Return whose lines of the log are wanted: `log`, a rank, or "" for all."""
        sources = self._sources()
        return sources[self._stream % len(sources)]

    def action_stream(self, step: int) -> None:
        """Show the log of the next rank of the host."""
        self._stream += step
        self.action_part("log")
        self._draw()

    def action_part(self, name: str) -> None:
        """Show events, slowest ranks or the log where they share a place; go there."""
        self._part = name
        self._arrange()
        self._wake.set()

    def key_enter(self) -> None:
        """Show the log of the selected host."""
        if isinstance(self.focused, HostGrid):
            self.action_part("log")

    def action_problem(self) -> None:
        """Go to the next host with a problem."""
        if not self._hosts.next_problem():
            self.notify("no host has a problem", timeout=2)

    def action_curve(self) -> None:
        """Show the next curve."""
        self._curves.turn()

    def action_zoom(self) -> None:
        """Show the last steps only."""
        self._curves.zoom()

    def action_filter(self) -> None:
        """Let the user type which hosts to show."""
        self._filter.display = True
        self._filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show only the hosts that are meant, at every letter."""
        self._words = event.value
        self._draw()

    def on_input_submitted(self) -> None:
        """Go on with the hosts shown."""
        self._filter.display = bool(self._filter.value)
        self._hosts.focus()

    def action_unfilter(self) -> None:
        """Show all hosts again."""
        self._filter.value = ""
        self._filter.display = False
        self._hosts.focus()

    def action_help(self) -> None:
        """Show all keys."""
        self.push_screen(Reading("keys and signs", help_text()))

    def action_diagnose(self) -> None:
        """Find out what failed first and why, and show it."""
        screen = Reading("diagnosis", "reading the evidence …")
        self.push_screen(screen)
        self._in_thread(self._actions.diagnose, screen.show)

    def action_cancel(self) -> None:
        """Ask, then end the run."""
        if self.look is None or self.look.snapshot.state.is_final:
            self.notify("the run has ended already", timeout=3)
            return
        self.push_screen(Question(self._actions.question()), self._cancel)

    def _cancel(self, sure: bool | None) -> None:
        if sure:
            self.notify("ending the run on every host …", timeout=5)
            self._in_thread(self._actions.cancel, lambda said: self.notify(said, timeout=10))

    def _in_thread(self, act: Any, then: Any) -> None:
        def work() -> None:
            said = act()
            if not self._over.is_set():
                self._hand(then, said)

        threading.Thread(target=work, daemon=True).start()
