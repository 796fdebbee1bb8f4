"""Print pieces of logs: lines with their origin, folded or not, JSON, or the bytes themselves."""

from __future__ import annotations

import json
import sys
import time as clock
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from orchestrator.monitor.logs.fold import Folded, Folder, Line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.monitor.logs.select import Stream
    from orchestrator.monitor.logs.source import Piece
    from orchestrator.monitor.logs.text import Texts

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "bright_cyan", "bright_magenta")
_WINDOW = 2.0  # seconds of the run's time in which lines are folded
_LIVE_WINDOW = 0.3  # seconds for which a line waits for others while the run is followed
_UNKNOWN = "-".ljust(23)  # as wide as a time


@dataclass(frozen=True)
class View:
    """How lines are shown.

    Attributes:
        fold: one line for what several ranks say alike.
        raw: one log's own bytes.
        as_json: an object a line.
        times: each line begins with its time.
        colour: hosts have colours, and lines keep theirs.
        bars: every state of a progress bar.
        bare: no origin before the lines.
    """

    fold: bool = False
    raw: bool = False
    as_json: bool = False
    times: bool = False
    colour: bool = False
    bars: bool = False
    bare: bool = False


class Printer:
    """Prints pieces in the order in which it is given them.

    Attributes:
        live: pieces are given as they are written.
    """

    live = False

    def show(self, piece: Piece) -> None:
        """Print a piece, now or with what comes after it."""
        raise NotImplementedError

    def flush(self, now: float | None = None) -> None:
        """Print what is held and empty buffers.

        Args:
            now: epoch seconds; what was given just before may be held on. None: hold nothing.
        """
        del now
        sys.stdout.flush()


def printer(view: View, texts: Texts) -> Printer:
    """Return the printer for a view.

    Args:
        view: how lines are shown.
        texts: which of them, as texts.
    """
    if view.raw:
        return _Raw()
    if view.as_json:
        return _Json(texts)
    return _FoldedLines(view, texts) if view.fold else _Lines(view, texts)


class _Raw(Printer):
    def show(self, piece: Piece) -> None:
        sys.stdout.buffer.write(piece.data)


class _Json(Printer):
    def __init__(self, texts: Texts) -> None:
        self._texts = texts

    def show(self, piece: Piece) -> None:
        stream = piece.stream
        told = {
            "time": None if piece.time is None else round(piece.time, 3),
            "attempt": stream.attempt,
            "host": stream.host,
            "rank": stream.rank,
            "stream": stream.kind,
        }
        lines = (
            json.dumps({**told, "text": text}, ensure_ascii=False) for text in self._texts.each(piece.data)
        )
        _write("".join(f"{line}\n" for line in lines))


class _Lines(Printer):
    def __init__(self, view: View, texts: Texts) -> None:
        self._view = view
        self._texts = texts
        self._attempt: int | None = None
        self._prefixes: dict[int, str] = {}

    def show(self, piece: Piece) -> None:
        head = "" if self._view.bare else f"{self._head(piece.stream)} "
        self._write(piece.stream, piece.time, head, self._texts.each(piece.data))

    def _write(self, stream: Stream, time: float | None, head: str, texts: Iterable[str]) -> None:
        if self._view.times:
            head = f"{shown_time(time)} {head}"
        if self._attempt not in (None, stream.attempt) and not self._view.bare:
            _write(f"--- attempt {stream.attempt}\n")
        self._attempt = stream.attempt
        _write("".join(f"{head}{text}\n" for text in texts))

    def _head(self, stream: Stream) -> str:
        """Return a stream's prefix, in its host's colour; neighbours have different ones."""
        if stream.place not in self._prefixes:
            colour = _COLOURS[stream.host_index % len(_COLOURS)] if self._view.colour else None
            self._prefixes[stream.place] = click.style(stream.prefix, fg=colour) if colour else stream.prefix
        return self._prefixes[stream.place]


class _FoldedLines(_Lines):
    def __init__(self, view: View, texts: Texts) -> None:
        super().__init__(view, texts)
        self._folder = Folder(_WINDOW)

    def show(self, piece: Piece) -> None:
        order = clock.time() if self.live else piece.order
        self._folder.window = _LIVE_WINDOW if self.live else _WINDOW
        for text in self._texts.each(piece.data):
            for folded in self._folder.add(Line(order, piece.time, piece.stream, text)):
                self._print(folded)

    def flush(self, now: float | None = None) -> None:
        for folded in self._folder.until(float("inf") if now is None else now - _LIVE_WINDOW):
            self._print(folded)
        super().flush(now)

    def _print(self, folded: Folded) -> None:
        stream = folded.line.stream
        head = self._head(stream)
        if folded.others:
            head = click.style(folded.prefix, bold=True) if self._view.colour else folded.prefix
        self._write(stream, folded.line.time, f"{head} ", [folded.text])


def shown_time(time: float | None) -> str:
    """Return a time (epoch seconds) as this machine's date, time and milliseconds; a dash where unknown."""
    if time is None:
        return _UNKNOWN
    milliseconds = round(time * 1000)
    local = clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(milliseconds // 1000))
    return f"{local}.{milliseconds % 1000:03d}"


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    if encoding.lower().replace("-", "") != "utf8":  # a terminal that knows fewer letters shows others as ?
        text = text.encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text)
