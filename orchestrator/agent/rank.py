"""The shim around one rank: same environment whichever launcher started it, own log files, a true end.

torchrun and DeepSpeed's launcher report a rank's end late (torchrun lives on while other ranks ignore
SIGTERM; DeepSpeed's `launch.py` polls once a second and waits up to 30 s for each), and only the parent
of a process learns how it ended. So every rank gets a parent of ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import sys
import time
from typing import Any, Iterable

from . import flight, processes
from .last_words import last_line, when_raised

_TAIL_BYTES = 8192
_LONGEST = 4096  # letters of a message: up to 12 bytes each in JSON, of which the agent hears 64 KiB
_OLD_FILE = "TORCH_NCCL_DEBUG_INFO_TEMP_FILE"
_RECORDS = "2000"  # torch 2.13's own default
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_AWAITED = (*_FORWARDED, signal.SIGCHLD)


def main(argv: list[str]) -> int:
    """Run one rank: `rank CONFIG.json -- COMMAND...`; end exactly as the command ended."""
    with open(argv[0], encoding="utf-8") as file:
        config: dict[str, Any] = json.load(file)
    return Shim(config, argv[2:]).run()


def rank_environment(config: dict[str, Any], environ: dict[str, str]) -> dict[str, str]:
    """Return the variables that every launcher must agree on, for the rank in `environ`.

    DeepSpeed 0.19.8's launch.py sets LOCAL_RANK to RANK modulo the host's slots, which with uneven
    slots gives two hosts different maps from torchrun's; the rank's place on its host decides here.
    """
    rank = int(environ["RANK"])
    local = str(config["local_world_size"])
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank - int(config["first_rank"])),
        "WORLD_SIZE": str(config["world_size"]),
        "LOCAL_WORLD_SIZE": local,
        "LOCAL_SIZE": local,
        "NODE_RANK": str(config["node_rank"]),
        "GROUP_RANK": str(config["node_rank"]),
        "CROSS_RANK": str(config["node_rank"]),
        "CROSS_SIZE": str(config["nnodes"]),
        "MASTER_ADDR": str(config["master_addr"]),
        "MASTER_PORT": str(config["master_port"]),
        "CUDA_VISIBLE_DEVICES": str(config["devices"]),
    }


def stack_environment(environ: dict[str, str], config: dict[str, Any], rank: int) -> dict[str, str]:
    """Return what makes a rank tell where it stands when it hangs or dies; what the user has set stays.

    Python writes its stacks to stderr at a fatal signal. c10d's flight recorder writes which collectives the
    rank has joined under a name to which it adds the rank: one in `dumps`, not in ~/.cache/torch, where every
    run overwrites it. It does so at an NCCL time-out, and when somebody writes into a pipe that it makes
    under another name (agent/flight.py): in a folder of this host, as c10d ends a rank that cannot make it.

    Torch 2.5 and older record nothing by themselves, 2.7 and older know the file by another name, and 2.12
    and older make no pipe where the number of records is not set (2.8 to 2.12 warn of that variable's name
    once: TORCH_NCCL_TRACE_BUFFER_SIZE is deprecated). TORCH_NCCL_TRACE_BUFFER_SIZE=0 turns all of it off.
    """
    stem = os.path.join(config["dumps"], f"{config['file_name']}.rank{rank}.fr.")
    wanted = {"PYTHONFAULTHANDLER": "1", "TORCH_FR_DUMP_TEMP_FILE": stem}
    if _OLD_FILE in environ:
        del wanted["TORCH_FR_DUMP_TEMP_FILE"]
    torch = _numbers(config.get("torch", ""))
    if torch:
        wanted["TORCH_NCCL_DUMP_ON_TIMEOUT"] = "1"  # without it, 2.6 and older look at the pipe every 8 min
        wanted[flight.VARIABLE] = flight.stem(os.path.dirname(config["socket"]), rank)
    if torch and torch < (2, 8) and "TORCH_FR_DUMP_TEMP_FILE" not in environ:
        wanted[_OLD_FILE] = stem
    if torch and torch < (2, 13):
        wanted["TORCH_NCCL_TRACE_BUFFER_SIZE"] = environ.get("TORCH_FR_BUFFER_SIZE", _RECORDS)
    return {name: value for name, value in wanted.items() if name not in environ}


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version; () for one that is not known."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return () if found is None else (int(found[1]), int(found[2]))


class Shim:
    """Parent of one rank: starts it, passes signals on, records how it ended."""

    def __init__(self, config: dict[str, Any], command: list[str]) -> None:
        self.command = command
        self.environ = dict(os.environ)
        self.environ.update(rank_environment(config, self.environ))
        self.rank = int(self.environ["RANK"])
        stem = f"{config['file_name']}.rank{self.rank}"
        self.out = os.path.join(config["logs"], stem + ".out")
        self.err = os.path.join(config["logs"], stem + ".err")
        self.record_path = os.path.join(config["errors"], stem + ".json")
        own_error_file = os.path.join(config["errors"], stem + ".elastic.json")
        self.error_file = self.environ.setdefault("TORCHELASTIC_ERROR_FILE", own_error_file)
        self.socket_path = config["socket"]
        self.child = 0
        self.agent = int(config["agent"])
        self.abort_mark = processes.abort_mark(config["socket"], self.rank)
        self.environ.update(stack_environment(self.environ, config, self.rank))
        self.record: dict[str, Any] = {
            "rank": self.rank,
            "local_rank": int(self.environ["LOCAL_RANK"]),
            "shim": os.getpid(),
            "term_time": None,
        }

    def run(self) -> int:
        """Start the rank, wait for it, record its end; does not return after a death by signal."""
        # Blocked until the rank has ended, and taken by _wait: a SIGTERM that came before there is a child to
        # pass it to would be the only one, and lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        parent = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            self._become_rank(parent, before)
        self._tell(dict(self.record, event="start", pid=self.child, time=time.time()))
        status = self._wait()
        ended = time.time()  # at once: which rank ended first is judged by it
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        code = processes.exit_code_of(status)
        self._finish(code, ended)
        if code < 0:
            _die_by(-code)
        return code

    def _wait(self) -> int:
        """Return the rank's wait status; pass signals on until it has ended.

        A waitpid() that waits would not do: Python runs handlers between its own steps, so a signal that came
        just before the system call would be passed on when the rank has ended.
        """
        while True:
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                return status
            number = signal.sigwait(_AWAITED)
            if number != signal.SIGCHLD:
                self._forward(number, None)

    def _become_rank(self, parent: int, mask: Iterable[int]) -> None:
        """Turn the forked child into the rank; never returns."""
        # Ignored signals stay ignored over exec: the keeper ignores some, Python itself SIGPIPE and SIGXFSZ.
        for number in (*_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        processes.die_with_parent()
        processes.let_trace(self.agent)
        if os.getppid() != parent:  # the parent died before the line above took effect
            os._exit(1)
        try:
            self._redirect()
            os.execvpe(self.command[0], self.command, self.environ)  # noqa: S606 - the user's own command
        except OSError as error:
            os.write(2, f"cannot start {self.command[0]!r}: {error.strerror}\n".encode())
        os._exit(127)

    def _redirect(self) -> None:
        """Give the rank its own files: no pipe of ours can lose its last bytes."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for path, number in ((self.out, 1), (self.err, 2)):
            handle = os.open(path, flags, 0o644)
            os.dup2(handle, number)
            os.close(handle)

    def _forward(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            if self.record["term_time"] is not None:
                return  # the training launcher and the agent both send one; the rank gets one
            self.record["term_time"] = time.time()
            number = self._how_to_end()
        if self.child:
            processes.send_to(self.child, number)

    def _how_to_end(self) -> int:
        """Return SIGTERM, or SIGABRT for a rank that hangs and has to leave its stacks, but no core file."""
        if not self.child or not os.path.exists(self.abort_mark):
            return signal.SIGTERM
        with contextlib.suppress(OSError, ValueError):
            # 1 byte: Linux writes no core file, and starts no program that would take one (core(5)).
            resource.prlimit(self.child, resource.RLIMIT_CORE, (1, 1))
        return signal.SIGABRT

    def _finish(self, code: int, ended: float) -> None:
        message, raised = _explain(self.error_file, self.err)
        self.record.update(
            pid=self.child,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            time=ended,
            message=message[:_LONGEST] if code else "",
            raised_time=raised,
            said_time=self._when_raised(ended, code < 0) if code else None,
        )
        with contextlib.suppress(OSError):  # a full disk: the agent still hears it
            with open(self.record_path + ".tmp", "w", encoding="utf-8") as file:
                json.dump(self.record, file)
            os.replace(self.record_path + ".tmp", self.record_path)
        self._tell(dict(self.record, event="exit"))

    def _when_raised(self, ended: float, by_signal: bool) -> float | None:
        return when_raised(_tail(self.err), self.err, self.record_path + ".tmp", ended, by_signal)

    def _tell(self, message: dict[str, Any]) -> None:
        # Without an agent to hear it the record on disk stays, and the keeper ends us.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(json.dumps(message).encode(), self.socket_path)


def _die_by(number: int) -> None:
    """End this process by the same signal as the rank, without a core file of ours."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)


def _explain(error_file: str, err: str) -> tuple[str, float | None]:
    """Return what the rank said last, and when it raised (epoch seconds) where it recorded that."""
    message, raised = _read_error_file(error_file)
    return message or last_line(_tail(err)), raised


def _read_error_file(path: str) -> tuple[str, float | None]:
    """Read torchelastic's error file (torch/distributed/elastic/multiprocessing/errors)."""
    try:
        with open(path, encoding="utf-8") as file:
            message = json.load(file)["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return "", None
    if not isinstance(message, dict):
        return str(message), None
    stamp = str((message.get("extraInfo") or {}).get("timestamp", ""))
    return str(message.get("message", "")), float(stamp) if stamp.isdigit() else None


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
