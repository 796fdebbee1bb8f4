"""Screens above the screen: a text to read, and a question."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Reading(ModalScreen[None]):
    """A text to scroll through.

    Args:
        title: above it.
        text: shown as it is; `show` replaces it.
    """

    BINDINGS: ClassVar = [
        Binding("escape,q,enter,d,question_mark", "dismiss", "close"),
        Binding("up,down", "none", "scroll", key_display="↑↓"),  # the text has the focus and does it
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """Make the parts."""
        with Vertical(classes="dialog") as box:
            box.border_title = self._title
            with VerticalScroll():
                yield Static(Text(self._text), id="text")
        yield Footer()

    def on_mount(self) -> None:
        """Show what `show` was given while the parts were made."""
        self.show(self._text)

    def show(self, text: str) -> None:
        """Show another text."""
        self._text = text
        for shown in self.query("#text").results(Static):  # none before the parts are there
            shown.update(Text(text))


class Question(ModalScreen[bool]):
    """A question that only `y` says yes to.

    Args:
        text: what is asked, and what follows.
    """

    BINDINGS: ClassVar = [
        Binding("y", "answer(True)", "yes, end it"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Make the parts."""
        with Vertical(classes="dialog question"):
            yield Static(Text(f"{self._text}\n\ny  yes, end it      n  no, leave it alone"))
        yield Footer()

    def action_answer(self, said: bool) -> None:
        """Close with the answer."""
        self.dismiss(said)
