"""Commands on the login host, as the commands of this machine give them."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from orchestrator.errors import LoginError, Problem
from orchestrator.login import frames
from orchestrator.login.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_END_SECONDS = 60.0  # for a holder that has given up to be gone


class LostError(LoginError):
    """The connection ended under a command: what became of the command there is not known."""


class Connection:
    """The kept connection to one login host; opened when a command first needs it."""

    def __init__(self, spec: Mapping[str, Any], *, may_log_in: bool = True) -> None:
        self.place = Place(spec)
        self._may_log_in = may_log_in

    @property
    def host(self) -> str:
        """Return the login host as the user wrote it."""
        return self.place.host

    def is_open(self) -> bool:
        """Tell whether there is a connection now, without making one."""
        return self.ask("status") is not None

    def ask(self, what: str) -> dict[str, Any] | None:
        """Ask the holder for its `status`, or to `close`; None where there is none."""
        sock = self._dial()
        if sock is None:
            return None
        message = None
        with sock, contextlib.suppress(ConnectionError):  # it may be about to end
            frames.send_json(sock, frames.REQUEST, do=what)
            message = frames.receive(sock)
        return None if message is None else dict(json.loads(message[1]))

    def start(self, command: str) -> socket.socket:
        """Start a command there; return the socket that carries its input, output and end.

        A connection that turns out to be dead is opened anew, once: nothing that was started has got its
        request then, and it ends without one.

        Raises:
            LoginError: no connection, no login, or no session for the command.
        """
        for again in (False, True):
            sock = self._dial() or self._open()
            message = None
            with contextlib.suppress(ConnectionError):  # it may be about to end
                frames.send_json(sock, frames.REQUEST, do="run", command=command)
                message = frames.receive(sock)
            if message is not None and message[0] == frames.STARTED:
                return sock
            sock.close()
            told: dict[str, Any] = {"why": "it ended", "lost": True}
            if message is not None:
                told = json.loads(message[1])
            if again or not told["lost"]:
                raise LoginError(Problem(told["why"], self.host))
            self._await_end()
        raise AssertionError  # the loop ends above

    def _await_end(self) -> None:
        """Wait for a holder that has given up to be gone, so that the next one has the place to itself."""
        deadline = time.monotonic() + _END_SECONDS
        while self._dial_quietly() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _dial_quietly(self) -> bool:
        sock = self._dial()
        if sock is not None:
            sock.close()
        return sock is not None

    def _dial(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(self.place.socket))
        except OSError:
            sock.close()
            return None
        return sock

    def open(self) -> None:
        """Make sure that there is a connection.

        Raises:
            LoginError: there is none, and no login.
        """
        if not self.is_open():
            self._await_end()
            self._open().close()

    def _open(self) -> socket.socket:
        """Log in, or wait for another command that is doing so."""
        self.place.make()
        with _locked(self.place):
            sock = self._dial()
            if sock is None:
                self._log_in()
                sock = self._dial()
        if sock is None:
            raise LoginError(Problem("the connection ended at once", self.host, fix=f"see {self.place.log}"))
        return sock

    def _log_in(self) -> None:
        if not self._may_log_in:
            raise LoginError(Problem("not connected", self.host, fix=f"orchestrate login {self.host}"))
        if importlib.util.find_spec("paramiko") is None:
            fix = "pip install 'zeropp-orchestrator[ssh]'"
            raise LoginError(
                Problem("paramiko is not installed beside orchestrate", "cluster.login", fix=fix)
            )
        word = self.place.take_word()
        if word and not word.startswith("closed"):
            click.echo(f"the connection to {self.host} was {word}; logging in again", err=True)
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = _start_holder(self.place, theirs)
            frames.send_json(ours, frames.REQUEST, **self.place.spec)
            self._converse(ours)
        process.returncode = 0  # it outlives us: not ours to wait for

    def _converse(self, talk: socket.socket) -> None:
        """Show and answer what the login asks, until it is done."""
        from orchestrator.login.terminal import ask  # noqa: PLC0415 - most commands ask nothing

        while (message := frames.receive(talk)) is not None:
            kind, told = message[0], json.loads(message[1] or b"{}")
            if kind == frames.STARTED:
                return
            if kind == frames.FAILED:
                raise LoginError(Problem(_in_words_of_login(told["why"]), "cluster.login"))
            if "say" in told:
                click.echo(told["say"], err=True)
            else:
                answer = ask(told["ask"], self.host, seen=told["seen"])
                frames.send(talk, frames.INPUT, answer.encode())
        raise LoginError(Problem("the login ended without a word", self.host, fix=f"see {self.place.log}"))


def _in_words_of_login(why: str) -> str:
    return why.replace("cluster.ssh.", "cluster.login.")


def _start_holder(place: Place, theirs: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.login.holder", str(place.folder), str(theirs.fileno())],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )


@contextlib.contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Let one command at a time log in."""
    handle = os.open(place.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
