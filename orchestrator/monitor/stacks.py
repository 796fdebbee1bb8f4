"""Where a rank stands, read from its stacks as py-spy or Python's faulthandler prints them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

_PY_SPY = re.compile(r"^ {2,}(\S+) \((.+?)(?::(\d+))?\)$")  # `    main (/home/me/train.py:12)`
_FAULT = re.compile(r'^ {2}File "(.+)", line (\d+|\?+) in (.+)$')
_THREAD = re.compile(r"^(Current thread|Thread) (\S+).*$")
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python3[\d.]*/|^<frozen |^<string>$")
_COLLECTIVE = re.compile(r"(?:^|/)(?:torch/distributed|deepspeed/comm)/|ProcessGroup|gloo::|nccl[A-Z]")
_WAITS = re.compile(r"(?:^|\.)_?(?:wait|barrier|synchronize|monitored_barrier|_engine_run_backward)$")
_NO_COLLECTIVE = frozenset({"wrapper", "log_wrapper", "<module>"})  # c10d_logger's, deepspeed/comm's
# What torch does in C++ for a line of Python: wait for a collective, or for a GPU, which waits for one.
_CALLS = re.compile(
    r"^# line \d+: .*(?:\.(?:wait|item|cpu|tolist|synchronize|is_completed)\(|\bdist\.)", re.MULTILINE
)
_COMPUTES = re.compile(r"(?:^|/)(?:torch|deepspeed|accelerate)/")


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{PurePosixPath(self.file).name}:{self.line} {self.function}"


@dataclass
class _Thread:
    name: str
    current: bool
    frames: list[Frame] = field(default_factory=list)  # the innermost first

    @property
    def is_main(self) -> bool:
        return '"MainThread"' in self.name or bool(self.frames and self.frames[-1].function == "<module>")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rank's main thread stands.

    Attributes:
        file: path of the innermost file that is the user's own, else of the innermost one.
        line: in it.
        function: that this line is in.
        waiting: it is inside a collective, so it waits for other ranks.
        inner: the innermost frame of all, as `queue.py:171 get`; "" where that is the place.
        guessed: that it waits is told by its line alone: `.item()` may as well wait for the rank's own work.
        collective: the one it is in, as the script calls it: `all_reduce`; "" where the stack does not tell.
    """

    file: str
    line: int
    function: str
    waiting: bool
    inner: str = ""
    guessed: bool = False
    collective: str = ""

    def __str__(self) -> str:
        return str(Frame(self.file, self.line, self.function))


def is_library(file: str) -> bool:
    """Tell whether a file of code is Python's or an installed package's, and not the user's own."""
    return _LIBRARY.search(file) is not None


def where(text: str) -> Place | None:
    """Return where the main thread of a dump stands; None for a text that holds no Python stack.

    Args:
        text: what `py-spy dump` printed, or an .err file that ends with faulthandler's words.
    """
    threads = [thread for thread in _threads(text) if thread.frames]
    if not threads:
        return None
    main = next((t for t in threads if t.is_main), next((t for t in threads if t.current), threads[0]))
    innermost = main.frames[0]
    own = next((frame for frame in main.frames if not _LIBRARY.search(frame.file)), innermost)
    inner = "" if own is innermost else str(innermost)
    waiting = _is_waiting(main.frames)
    guessed = not waiting and _CALLS.search(text) is not None
    name = _collective(main.frames) if waiting else ""
    return Place(own.file, own.line, own.function, waiting or guessed, inner, guessed, name)


def _collective(frames: list[Frame]) -> str:
    """Return the function of torch.distributed that was called last from outside of it."""
    within = [frame.function for frame in frames if _COLLECTIVE.search(frame.file)]
    return next((name for name in reversed(within) if name not in _NO_COLLECTIVE), "")


def _is_waiting(frames: list[Frame]) -> bool:
    """Tell whether the innermost frames are those of a collective.

    The kernel's and the interpreter's own ways of waiting may lie within it (threading, selectors). A rank in
    the middle of `backward()` that uses no CPU waits for gradients of others: DDP's hooks do so in C++. While
    torch.distributed is imported, a rank is at work.
    """
    for frame in frames:
        if frame.function == "<module>" and is_library(frame.file):
            return False
        if _COLLECTIVE.search(frame.file) or _COLLECTIVE.search(frame.function):
            return True
        if _WAITS.search(frame.function) and _COMPUTES.search(frame.file):
            return True
        if not _LIBRARY.search(frame.file) or _COMPUTES.search(frame.file):
            return False
    return False


def _threads(text: str) -> list[_Thread]:
    found: list[_Thread] = []
    for line in stacks_of(text).splitlines():
        thread, frame = _THREAD.match(line), _frame(line)
        if thread is not None:
            found.append(_Thread(line, thread[1] == "Current thread"))
        elif frame is not None and found:
            found[-1].frames.append(frame)
    return found


def _frame(line: str) -> Frame | None:
    if match := _FAULT.match(line):
        return Frame(match[1], int(match[2]) if match[2].isdigit() else 0, match[3])
    if match := _PY_SPY.match(line):
        return Frame(match[2], int(match[3] or 0), match[1])
    return None


def stacks_of(text: str) -> str:
    """Return what faulthandler wrote last into a text; the text itself where it wrote nothing."""
    begin = text.rfind("Fatal Python error: ")
    return text if begin < 0 else text[begin:]
