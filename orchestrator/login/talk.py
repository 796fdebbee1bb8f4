"""One exchange with the program on the login host: a request, its input, what it says, how it ends."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import TYPE_CHECKING, Any, Self

from orchestrator.errors import OrchestratorError, Problem
from orchestrator.login import frames
from orchestrator.login.client import LostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.login.client import Connection


class _Stream:
    """One output of the far program, from the mark on: a shell's start-up files may print before it."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._seen = False
        self.before = b""
        self.data = b""

    @property
    def begun(self) -> bool:
        """Tell whether the program itself has spoken."""
        return self._seen

    def add(self, data: bytes) -> None:
        """Take in bytes."""
        if self._seen:
            self.data += data
            return
        self.before += data
        head, mark, rest = self.before.partition(self._mark)
        if mark:
            self._seen, self.before, self.data = True, head, rest

    def take(self) -> bytes:
        """Return what has come since the last time."""
        data, self.data = self.data, b""
        return data


class Talk:
    """A running far program; use as a context manager, which ends it if it still runs."""

    def __init__(self, connection: Connection, command: str, mark: str) -> None:
        self.host = connection.host
        self._sock = connection.start(command)
        self._out = _Stream(b"\x1e" + mark.encode() + b"\n")
        self._errors = _Stream(b"\x1e" + mark.encode() + b"\n")
        self._code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    # -- to it

    def send(self, data: bytes) -> None:
        """Send bytes to its input."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), frames.CHUNK):
                frames.send(self._sock, frames.INPUT, bytes(view[start : start + frames.CHUNK]))
        except OSError as error:
            self._drain()  # its last words say why it takes nothing any more
            raise self._lost("the connection was lost") from error

    def send_json(self, value: Any) -> None:
        """Send one line of JSON."""
        self.send(json.dumps(value).encode() + b"\n")

    def end_input(self) -> None:
        """Tell it that nothing more will come."""
        with contextlib.suppress(OSError):
            frames.send(self._sock, frames.INPUT)

    # -- from it

    def _next(self) -> bool:
        """Wait for one message; False when the program has ended."""
        message = frames.receive(self._sock) if self._code is None else None
        if message is None:
            if self._code is None:
                raise self._lost("the process that kept the connection is gone")
            return False
        kind, data = message
        if kind == frames.OUTPUT:
            self._out.add(data)
        elif kind == frames.ERRORS:
            self._errors.add(data)
        elif kind == frames.ENDED:
            self._code = json.loads(data)["code"]
        else:
            raise self._lost(json.loads(data)["why"])
        return True

    def _lost(self, why: str) -> LostError:
        return LostError(Problem(why, self.host))

    def _drain(self) -> None:
        with contextlib.suppress(LostError):
            while self._next():
                pass

    @property
    def begun(self) -> bool:
        """Tell whether the program itself has spoken: what failed before was the shell."""
        return self._out.begun

    def begin(self) -> bool:
        """Wait for its first word; False when it ends before."""
        while not self._out.begun:
            if not self._next():
                return False
        return True

    def line(self) -> Any:
        """Return its next line of output, as JSON.

        Raises:
            OrchestratorError: it ended before; with what it said.
        """
        while b"\n" not in self._out.data:
            if not self._next():
                raise self.failure()
        line, _, self._out.data = self._out.data.partition(b"\n")
        return json.loads(line)

    def exactly(self, size: int, take: Callable[[bytes], Any]) -> None:
        """Hand on that many bytes of its output.

        Raises:
            OrchestratorError: it ended before.
        """
        while size:
            while not self._out.data:
                if not self._next():
                    raise self.failure()
            data, self._out.data = self._out.data[:size], self._out.data[size:]
            take(data)
            size -= len(data)

    def relay(self, out: Callable[[bytes], Any], errors: Callable[[bytes], Any]) -> int:
        """Hand on all it says until it ends; return its exit code."""
        while True:
            for stream, take in ((self._out, out), (self._errors, errors)):
                data = stream.take()
                if data:
                    take(data)
            if not self._next():
                return self.code

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        while self._next():
            pass
        return self.code

    @property
    def code(self) -> int:
        """Return the exit code of the program that has ended."""
        return 255 if self._code is None else self._code

    def said(self) -> str:
        """Return what it said on its error output; where it never began, what the shell said."""
        parts = [self._errors.data] if self._errors.begun else [self._out.before, self._errors.before]
        return b"".join(parts).decode("utf-8", "replace").strip()

    def failure(self) -> OrchestratorError:
        """Return the error of a program that ended too early."""
        what = self.said() or f"the command there ended with {self.code} and without a word"
        return OrchestratorError(Problem(what, self.host))


def new_mark() -> str:
    """Return a word that nothing else prints."""
    return secrets.token_hex(8)
