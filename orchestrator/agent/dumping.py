"""Where a rank stands: its threads' stacks by py-spy, what the kernel says, and c10d's flight recorder.

py-spy reads another process's memory, which takes the right to trace it (ptrace(2)). A rank's shim grants
that to the agent and what it starts (rank.py), so it works under Yama's usual restriction. It does not where
`ptrace_scope` is 2 or more, or a container forbids it; then the rank's own faulthandler tells at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
import zlib
from typing import Any

from .flight import Recorder
from .host_facts import read_text
from .trees import read_use

TOOL = "py-spy"
_SECONDS = 20.0  # for one rank: symbols of a large program on a slow disk
_AT_ONCE = 4
_MOST = 1 << 20  # bytes of one rank's stacks
_LONGEST = 300  # characters of a line of source
_FRAME = r"\n {2,}\S+ \((.+?):(\d+)\)\n"
_MAIN = re.compile('"MainThread"' + _FRAME)
_ONLY = re.compile(r"\nThread [^\n]*" + _FRAME)  # one that never imported threading has no name
_MOST_ASKED = 4.0  # times at once that a flight recorder is asked: each look at a stall asks twice
_ASK_SECONDS = 300.0  # until it may be asked once more
_STATES = {"D": "waits for a disk or a driver, and cannot be interrupted", "T": "stopped", "Z": "has ended"}


class Dumper:
    """Dumps ranks when told to, in threads: a process that hangs in the kernel may hold up who looks at it.

    Args:
        python: the ranks' python, beside which py-spy is looked for first.
        given: where the supervisor puts py-spy if there is none here.
        files: what the names of the ranks' own files begin with, those of flight recorders among them.
    """

    def __init__(self, python: str, given: str, files: str = "") -> None:
        self._python = shutil.which(python) or sys.executable
        self._given = given
        self._files = files
        self._asks: dict[int, tuple[float, float]] = {}
        self._answers: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        self._begun: set[tuple[Any, int]] = set()
        self._room = threading.Semaphore(_AT_ONCE)

    @classmethod
    def of(cls, config: dict[str, Any], file_name: str, folder: str) -> Dumper:
        """Return the one of a host; `folder` is the agent's private one."""
        files = os.path.join(config["dumps"], file_name)
        return cls(config["python"], os.path.join(folder, TOOL), files)

    def order(self, message: dict[str, Any], pids: dict[int, int]) -> None:
        """Begin to dump the ranks of an order that are among ours; an order that comes twice is done once."""
        for rank in message["ranks"]:
            key = (message["id"], rank)
            if rank in pids and key not in self._begun:
                self._begun.add(key)
                with contextlib.suppress(RuntimeError):  # no thread to be had: no stacks then
                    threading.Thread(target=self._dump, args=(*key, pids[rank]), daemon=True).start()

    def answers(self) -> list[tuple[dict[str, Any], bytes]]:
        """Return, once, what has been found: messages with the dumps as their payload."""
        return [self._answers.get_nowait() for _ in range(self._answers.qsize())]

    def _dump(self, order: Any, rank: int, pid: int) -> None:
        recorder = Recorder(os.path.dirname(self._given), f"{self._files}.rank{rank}.fr.", rank)
        asked = bool(self._files) and self._may_ask(rank) and recorder.ask()
        tool = find_tool(self._python, self._given)
        with self._room:
            text, why = dump(tool, pid) if tool else ("", "")
        if not tool:
            why = f"there is no {TOOL} beside {self._python}, nor on PATH; pip install {TOOL}"
        message = {"t": "dumped", "id": order, "rank": rank, "how": TOOL if text else "", "why": why}
        message["lacks"] = not tool
        message["flight"] = asked and recorder.wait()
        facts = kernel_facts(pid) + source_line(text, pid)
        self._answers.put((message, f"{facts}{text}".encode("utf-8", "replace")[:_MOST]))

    def _may_ask(self, rank: int) -> bool:
        """Tell whether a rank's flight recorder may be asked now: it writes some MB each time."""
        now = time.monotonic()
        left, since = self._asks.get(rank, (_MOST_ASKED, now))
        left = min(_MOST_ASKED, left + (now - since) / _ASK_SECONDS)
        self._asks[rank] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def take_tool(self, message: dict[str, Any]) -> None:
        """Keep the py-spy that the supervisor sends, if it is for a machine like this one."""
        if message.get("machine") == os.uname().machine:
            with contextlib.suppress(OSError, zlib.error), open(self._given, "wb") as file:
                file.write(zlib.decompress(message["payload"]))
                os.fchmod(file.fileno(), 0o700)

    def forget(self) -> None:
        """Do anew what is ordered again: the supervisor has not got the answer, its connection broke."""
        self._begun.clear()


def find_tool(python: str, given: str) -> str | None:
    """Return the py-spy to run: beside the ranks' python, on PATH, or the one the supervisor gave."""
    beside = os.path.join(os.path.dirname(python), TOOL)
    return next(
        (path for path in (beside, shutil.which(TOOL), given) if path and os.access(path, os.X_OK)), None
    )


def dump(tool: str, pid: int) -> tuple[str, str]:
    """Return the stacks of the Python process of a rank, and "" or why there are none."""
    why = "it runs no Python"
    for target in python_processes(pid):
        words = [tool, "dump", "--full-filenames", "--pid", str(target)]
        if state_of(target) == "D":
            words.append("--nonblocking")  # it could not be paused, and py-spy would wait for that
        text, why = _run(words)
        if text:
            return text, ""
    return "", why


def _run(words: list[str]) -> tuple[str, str]:
    # The agent reaps every child, this one too: whether it did well is told by what it printed.
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"{TOOL} took longer than {_SECONDS:.0f} s"
    except OSError as error:
        return "", f"{words[0]} cannot be run: {error.strerror}"
    text = done.stdout.decode("utf-8", "replace")
    said = done.stderr.decode("utf-8", "replace").split("\n")
    return (text, "") if "Thread" in text else ("", f"{TOOL}: {next(filter(None, said), 'it said nothing')}")


def source_line(text: str, pid: int) -> str:
    """Return the line of source that the main thread stands on, as one that begins with `#`; "" if unknown.

    Calls into C++ (`work.wait()`, `loss.item()`) have no frame of their own: only the line tells of them.
    """
    match = _MAIN.search(text) or _ONLY.search(text)
    if match is None:
        return ""
    try:
        with open(os.path.join(f"/proc/{pid}/cwd", match[1]), encoding="utf-8", errors="replace") as file:
            found = next(itertools.islice(file, int(match[2]) - 1, None), "").strip()
    except OSError:
        return ""
    return f"# line {match[2]}: {found[:_LONGEST]}\n" if found else ""


def python_processes(pid: int) -> list[int]:
    """Return the Python processes of a rank, the nearest first: a shell of its may have started them."""
    parents = {int(name): read_use(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    family = [pid]
    for one in family:
        family += [child for child, use in parents.items() if use is not None and use.parent == one]
    return [one for one in family if "python" in program_of(one)][:2]


def program_of(pid: int) -> str:
    """Return the name of the program that a process runs; "" where it cannot be told."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """Return the letter of a process's state (proc(5)); "" when there is none."""
    return read_text(f"/proc/{pid}/stat").rpartition(") ")[2][:1]


def kernel_facts(pid: int) -> str:
    """Return lines that begin with `#`: what the kernel says of a process and of threads that it holds up."""
    state = state_of(pid)
    lines = [f"# pid {pid}, state {state} {_STATES.get(state, '')}".rstrip()]
    try:
        threads = sorted(os.listdir(f"/proc/{pid}/task"), key=int)
    except OSError:
        return f"# pid {pid} has ended\n"
    for thread in threads:
        where = read_text(f"/proc/{pid}/task/{thread}/wchan").strip("0\n")
        name = read_text(f"/proc/{pid}/task/{thread}/comm").strip()
        doing = f"in {where} of the kernel" if where else "at work"
        if thread == str(pid) or state_of(int(thread)) == "D":
            lines.append(f"# thread {thread} {name}: {doing}")
    return "\n".join(lines) + "\n"
