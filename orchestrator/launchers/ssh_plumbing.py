"""What paramiko leaves to its users: a proxy command with an error output, lines, a tunnel's pump."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import paramiko

_CHUNK = 1 << 16


class Proxy:
    """A program that carries a connection on its standard input and output, as ssh's ProxyCommand.

    paramiko 5.1's ProxyCommand splits one string and hides the program's own error output; this one takes
    a list and keeps the words for the user.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the proxy
        with theirs:
            self._process = subprocess.Popen(
                list(command),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )

    def send(self, data: bytes) -> int:
        """Send bytes; return how many were taken."""
        return self._ours.send(data)

    def recv(self, size: int) -> bytes:
        """Receive bytes; b"" at the end."""
        return self._ours.recv(size)

    def settimeout(self, seconds: float | None) -> None:
        """Set how long send and recv may wait."""
        self._ours.settimeout(seconds)

    @property
    def _closed(self) -> bool:
        """Tell whether it was closed; paramiko asks this of its socket by this name."""
        return self._ours.fileno() < 0

    def last_words(self) -> str:
        """Return what the program said on its error output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        self._errors.seek(0)
        return " ".join(self._errors.read().decode("utf-8", "replace").split())

    def close(self) -> None:
        """End the program."""
        self._ours.close()
        self._process.terminate()
        self._process.wait()
        self._errors.close()


def read_lines(channel: paramiko.Channel, take_line: Callable[[str], None]) -> None:
    """Call `take_line` with every line of a command's output until it ends."""
    buffer = b""
    while data := channel.recv(_CHUNK):
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            take_line(line.decode("utf-8", "replace").rstrip("\r"))
    if buffer:
        take_line(buffer.decode("utf-8", "replace"))


def pump(channel: paramiko.Channel, port: int) -> None:
    """Carry bytes between a forwarded channel and our own port until either side ends."""
    with (
        contextlib.suppress(OSError),
        channel,
        socket.create_connection(("127.0.0.1", port), timeout=10) as local,
    ):
        local.settimeout(None)
        while True:
            ends: list[Any] = [channel, local]
            ready, _, _ = select.select(ends, [], [])
            for source, sink in (ends, ends[::-1]):
                if source in ready:
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    sink.sendall(data)


def split_port(place: str) -> tuple[str, str]:
    """Take `[user@]host[:port]` (an IPv6 host in brackets) apart into `[user@]host` and the port or ""."""
    head, colon, port = place.rpartition(":")
    if colon and port.isdigit() and (head.endswith("]") or ":" not in head):
        return head.replace("[", "").replace("]", ""), port
    return place.replace("[", "").replace("]", ""), ""
