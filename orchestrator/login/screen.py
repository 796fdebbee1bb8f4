"""A full screen of a run there on the terminal here, over the kept connection: no second login, no pty.

The far program draws with the driver that Textual has for browsers (`textual.drivers.web_driver`, 8.2),
which talks over its pipes in packets: a letter (D for what a terminal would be sent or type, M for JSON about
it), four bytes of size, the payload. Behind `orchestrate top --web` the packets go on as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from typing import TYPE_CHECKING

from orchestrator.login.client import Connection
from orchestrator.login.install import NotInstalledError, Program, call, install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.login.records import RemoteRun
    from orchestrator.login.talk import Talk

_READY = b"__GANGLION__\n"  # what the driver says first
_CHUNK = 65536
# What the driver, made for browsers, switches on and never off: mouse, pasted text, alternate screen.
_RESTORE = b"\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b[?25h"


def show_screen(run: RemoteRun) -> int:
    """Show `orchestrate top` of a run there until it ends; return its exit code.

    Raises:
        LoginError: the login host cannot be reached, or the program cannot be installed there.
    """
    connection = Connection(run.login)
    program = Program("top")
    request = {"verb": "screen", "run_dir": run.run_dir}
    try:
        talk = call(connection, program.name, request)
    except NotInstalledError:
        install(connection, program)
        talk = call(connection, program.name, request)
    with talk:
        return _through(talk) if "TEXTUAL_DRIVER" in os.environ else _on_terminal(talk)


def _through(talk: Talk) -> int:
    """Hand packets on between the far program and a browser's server, whose pipes are ours."""
    threading.Thread(target=_send_all, args=(talk,), daemon=True).start()
    return talk.relay(_write_out, _write_errors)


def _send_all(talk: Talk) -> None:
    with contextlib.suppress(Exception):  # the far side has ended: the main thread tells how
        while data := os.read(0, _CHUNK):
            talk.send(data)
    talk.end_input()


def _on_terminal(talk: Talk) -> int:
    screen = _Screen()
    wake, woken = os.pipe()
    signal.signal(signal.SIGWINCH, lambda *_: os.write(woken, b"r"))
    threading.Thread(target=_type, args=(talk, screen.ready, wake), daemon=True).start()
    with _raw(screen):
        return talk.relay(screen.take, screen.complain)


def _type(talk: Talk, ready: threading.Event, wake: int) -> None:
    """Send what the user types, and the terminal's size at first and whenever it changes."""
    ready.wait()
    with contextlib.suppress(Exception):  # the far side has ended: the main thread tells how
        talk.send(_size_packet())
        while True:
            found = select.select([0, wake], [], [])[0]
            if wake in found:
                os.read(wake, 64)
                talk.send(_size_packet())
            if 0 in found:
                data = os.read(0, _CHUNK)
                if not data:
                    return talk.end_input()
                talk.send(packet(b"D", data))


def _size_packet() -> bytes:
    size = shutil.get_terminal_size()
    return packet(b"M", json.dumps({"type": "resize", "width": size.columns, "height": size.lines}).encode())


def packet(kind: bytes, payload: bytes) -> bytes:
    """Return one packet of the driver's."""
    return kind + len(payload).to_bytes(4, "big") + payload


class Unpacked:
    """Takes the driver's packets apart, however they are cut on their way."""

    def __init__(self) -> None:
        self.begun = False
        self._data = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield kind and payload of each packet that is complete; what comes before the first is left out."""
        self._data += data
        if not self.begun:
            _, mark, rest = self._data.partition(_READY)
            if not mark:
                return
            self.begun, self._data = True, rest
        while len(self._data) >= 5:
            end = 5 + int.from_bytes(self._data[1:5], "big")
            if len(self._data) < end:
                return
            yield self._data[:1], self._data[5:end]
            self._data = self._data[end:]


class _Screen:
    """The terminal here."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.said = b""
        self._packets = Unpacked()

    def take(self, data: bytes) -> None:
        """Draw what came."""
        for kind, payload in self._packets.feed(data):
            if kind == b"D":
                _write_out(payload)
        if self._packets.begun:
            self.ready.set()

    def complain(self, data: bytes) -> None:
        """Keep what the far program has to say of errors for when the screen is gone."""
        self.said += data


@contextlib.contextmanager
def _raw(screen: _Screen) -> Iterator[None]:
    """Have every key to ourselves; afterwards the terminal is as it was."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        _write_out(_RESTORE if screen.ready.is_set() else b"")
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        _write_errors(screen.said)


def _write_out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _write_errors(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
