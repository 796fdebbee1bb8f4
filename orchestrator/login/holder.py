"""The process that keeps one ssh connection: every command of this user to that login host goes through it.

It is started by the first command, which stays in touch over a socket pair until the login is done: prompts
are shown and answered there, nothing secret is stored. Then it listens on a socket in its folder and runs
one command per connection to it, until it is told to end, nothing happened for long, or the host is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.login import frames
from orchestrator.login.place import Place

if TYPE_CHECKING:
    import paramiko

    from orchestrator.launchers.remote import Remote, Target

_SILENCE_MS = 45_000  # unanswered for so long, the connection is given up
_OPEN_SECONDS = 15.0
_LOOK = 1.0  # seconds between looks at the connection
_FIRST_SECONDS = 60.0  # for the command that has had us started to come


def main(handle: int) -> int:
    """Log in and serve. The socket pair `handle` first gives what `cluster.login` says, as JSON.

    Returns:
        The exit code: 0 after serving, 1 when there was no login.
    """
    talk = socket.socket(fileno=handle)
    message = frames.receive(talk)
    if message is None:
        return 1
    place = Place(json.loads(message[1]))
    try:
        remote = _log_in(place, talk)
    except Exception as error:  # noqa: BLE001 - paramiko raises what it likes; the user must be told
        with contextlib.suppress(OSError):
            frames.send_json(talk, frames.FAILED, why=str(error) or type(error).__name__)
        return 1
    server = _listen(place)
    with contextlib.suppress(OSError):
        frames.send_json(talk, frames.STARTED)
    talk.close()
    why = _Holder(place, remote, server).serve()
    place.leave_word(why)  # first: who finds no socket any more logs in, and says why
    place.socket.unlink(missing_ok=True)
    remote.close()
    return 0


def _log_in(place: Place, talk: socket.socket) -> Remote:
    from orchestrator.launchers.remote import Remote  # noqa: PLC0415 - brings paramiko
    from orchestrator.login.auth import Authentication  # noqa: PLC0415
    from orchestrator.login.ssh_config import write_ssh_config  # noqa: PLC0415

    def ask(prompt: str, seen: bool) -> str:
        frames.send_json(talk, frames.REQUEST, ask=prompt, seen=seen)
        answer = frames.receive(talk)
        if answer is None or answer[0] != frames.INPUT:
            raise OSError("nobody is there to answer the login host's question")
        return answer[1].decode()

    def say(text: str) -> None:
        frames.send_json(talk, frames.REQUEST, say=text)

    def strategy(target: Target) -> Authentication:
        return Authentication(target, ask, say)

    alias = write_ssh_config(place)
    remote = Remote(place.folder, alias, strategy)
    transport = remote.transport
    if transport is not None:
        sock: Any = transport.sock
        with contextlib.suppress(OSError, AttributeError):  # through a jump host there is no socket of ours
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
    return remote


def _listen(place: Place) -> socket.socket:
    place.socket.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place.socket))
    place.socket.chmod(0o600)
    server.listen(16)
    server.settimeout(_LOOK)
    return server


class _Holder:
    def __init__(self, place: Place, remote: Remote, server: socket.socket) -> None:
        self._idle = float(place.spec["idle"])
        self._remote = remote
        self._server = server
        self._since = time.time()
        self._used = time.monotonic() + _FIRST_SECONDS
        self._running = 0
        self._count = threading.Lock()
        self._told_to_end = threading.Event()

    def serve(self) -> str:
        """Run commands until there is a reason to end; return it."""
        while True:
            try:
                client, _ = self._server.accept()
            except TimeoutError:
                client = None
            if client is not None:
                self._expect_no_first()
                client.settimeout(None)
                threading.Thread(target=self._attend, args=(client,), daemon=True).start()
            if self._told_to_end.is_set():
                return "closed"
            if not self._alive():
                return "lost"
            if not self._running and time.monotonic() - self._used > self._idle:
                return f"closed after {self._idle:g} s without a command"

    def _expect_no_first(self) -> None:
        """Count idle seconds from now on, where that has not begun."""
        with self._count:
            self._used = min(self._used, time.monotonic())

    def _alive(self) -> bool:
        transport = self._remote.transport
        return transport is not None and transport.is_active()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            message = frames.receive(client) if _is_ours(client) else None
            if message is None:
                return
            request = json.loads(message[1])
            if request["do"] == "run":
                self._busy(1)
                try:
                    self._run(client, request["command"])
                finally:
                    self._busy(-1)
            elif request["do"] == "close":
                self._told_to_end.set()
                frames.send_json(client, frames.ENDED, code=0)
            else:
                frames.send_json(client, frames.ENDED, **self._status())

    def _busy(self, change: int) -> None:
        with self._count:
            self._running += change
            self._used = time.monotonic()

    def _status(self) -> dict[str, Any]:
        idle_for = 0.0 if self._running else time.monotonic() - self._used
        return {
            "since": self._since,
            "pid": os.getpid(),
            "running": self._running,
            "closes_in": round(self._idle - idle_for),
            "user": self._remote.target.user,
            "hostname": self._remote.target.hostname,
            "port": self._remote.target.port,
        }

    def _run(self, client: socket.socket, command: str) -> None:
        import paramiko  # noqa: PLC0415

        try:
            channel = self._session()
            channel.exec_command(command)
        except paramiko.ChannelException as error:  # the host answers, and says no (MaxSessions)
            frames.send_json(
                client, frames.FAILED, why=f"the login host opens no session: {error}", lost=False
            )
            return
        except (paramiko.SSHException, OSError, EOFError) as error:
            frames.send_json(client, frames.FAILED, why=str(error) or type(error).__name__, lost=True)
            self._give_up()
            return
        frames.send(client, frames.STARTED)
        _relay(client, channel)

    def _session(self) -> paramiko.Channel:
        import paramiko  # noqa: PLC0415

        transport = self._remote.transport
        if transport is None:
            raise paramiko.SSHException("closed")
        return transport.open_session(timeout=_OPEN_SECONDS)

    def _give_up(self) -> None:
        transport = self._remote.transport
        if transport is not None:
            transport.close()


def _is_ours(client: socket.socket) -> bool:
    """Tell whether the other side is the same user; the folder's mode says so too."""
    peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", peer)[1] == os.getuid())


def _relay(client: socket.socket, channel: paramiko.Channel) -> None:
    """Carry a command's input, output and end; its input ends, and the channel, with the client."""
    sending = threading.Lock()

    def output(kind: bytes, read: Any) -> None:
        with contextlib.suppress(OSError):
            while data := read(frames.CHUNK):
                with sending:
                    frames.send(client, kind, data)

    readers = [
        threading.Thread(target=output, args=(frames.OUTPUT, channel.recv), daemon=True),
        threading.Thread(target=output, args=(frames.ERRORS, channel.recv_stderr), daemon=True),
    ]
    threading.Thread(target=_input, args=(client, channel), daemon=True).start()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    ended = channel.exit_status_ready() or channel.status_event.wait(5)  # it may follow the output
    code = channel.recv_exit_status() if ended and channel.exit_status != -1 else None
    transport = channel.get_transport()
    channel.close()
    if code is not None:
        frames.send_json(client, frames.ENDED, code=code)
    else:
        transport.join(0.2)  # paramiko 5.1 closes the channels first, and then the connection
        lost = not transport.is_active()
        why = "the connection was lost" if lost else "the command was ended by a signal"
        frames.send_json(client, frames.FAILED, why=why, lost=lost)


def _input(client: socket.socket, channel: paramiko.Channel) -> None:
    with contextlib.suppress(OSError):
        while (message := frames.receive(client)) is not None:
            if message[0] == frames.INPUT and message[1]:
                channel.sendall(message[1])
            else:
                channel.shutdown_write()
        channel.close()  # the client is gone: what runs there sees the end of its input


if __name__ == "__main__":
    os.umask(0o077)
    log = os.open(Path(sys.argv[1]) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.exit(main(int(sys.argv[2])))
