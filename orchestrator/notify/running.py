"""Run the user's own command with a message."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING

from orchestrator.notify.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.notify.message import Message

# A supervisor's threads hold signals back (supervisor/told.py), and a command would inherit that: `timeout`
# in it could end nothing. To let go of them in the thread, even for a moment, could end the supervisor.
_STARTER = [
    *(sys.executable, "-I", "-S", "-c"),
    """if True:
    import os, signal, sys
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        sys.exit(127)
    """,
]
_SAID = 300  # characters of what it said that are kept


def run_command(words: Sequence[str], message: Message, folder: Path, seconds: float) -> None:
    """Run a command: subject and text are its input, ORCHESTRATE_… tell it of the run.

    Input and output are files, no pipes: what it leaves running in the background holds nothing up.

    Args:
        words: the command; {subject}, {text}, {run_id}, {event} and {state} in them are replaced.
        message: what it is told.
        folder: where it runs.
        seconds: when it is killed, with all of its session that is still of its group.

    Raises:
        DeliveryError: it cannot be started (code 127), took too long, or ended with another code than 0.
    """
    command = [_filled(word, message) for word in words]
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as said:
        told.write(f"{message.subject}\n{message.text}\n".encode())
        told.seek(0)
        process = subprocess.Popen(
            [*_STARTER, *command], stdin=told, stdout=said, stderr=said, cwd=folder,
            env=_environment(message), start_new_session=True,
        )  # fmt: skip
        code = _code(process, command[0], seconds)
        if code:
            how = f"ended with {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            raise DeliveryError(f"{command[0]} {how}{_last_words(said)}", again=False)


def _code(process: subprocess.Popen[bytes], name: str, seconds: float) -> int:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise DeliveryError(f"{name} took longer than {seconds:g} s", again=False) from None


def _environment(message: Message) -> dict[str, str]:
    names = ("event", "run_id", "state", "reason", "run_dir", "step", "loss")
    told = {
        f"ORCHESTRATE_{name.upper()}": str(message.values[name]) for name in names if name in message.values
    }
    return {**os.environ, **told}


def _filled(word: str, message: Message) -> str:
    values = {"subject": message.subject, "text": message.text}
    values |= {name: str(message.values.get(name, "")) for name in ("run_id", "event", "state")}
    return re.sub("{(" + "|".join(values) + ")}", lambda match: values[match[1]], word)


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, 2)
    said.seek(max(0, size - _SAID))
    words = " ".join(said.read().decode("utf-8", "replace").split())
    return f": {words}" if words else ""
