"""The line of a rank's stderr that most likely says why it ended."""

from __future__ import annotations

import os
import re
import time

_LONGEST = 500
# torch 2.13 puts this before every line of an uncaught exception once the process group is there.
_RANK = re.compile(r"^(?:\[rank\d+\]:\s?)+")
_TRACEBACK = "Traceback (most recent call last)"
_UNCAUGHT = re.compile(r"^\[rank\d+\]:\s?Traceback ", re.MULTILINE)
# Python takes objects down after the exception: what these raise has nothing to do with it.
_AFTERWARDS = ("Exception ignored ", "Error in atexit", "Error in sys.excepthook")
_TERMINATED = re.compile(r"^\s*what\(\):\s*(.+)")
_FATAL = re.compile(r"^Fatal Python error: ")
_WARNING = re.compile(r"^\[?[WI]\d{3,4}[ \]]|^\[W[\d. ]|.* NCCL INFO ")
# Frames of C++ and of faulthandler, and log lines of torch that come after the reason.
_NO_REASON = re.compile(
    r"^(frame #\d+|\s+File \"|(Current thread|Thread) 0x|Extension modules:|Exception raised from |"
    r"\[?[WI]\d{3,4}[ \]]|\[W[\d. ]|terminate called|\s*warnings\.warn\(|.*resource_tracker|"
    r"\s+<no Python frame>|.* NCCL INFO |.*ProcessGroupNCCL preparing to dump debug info)"
)
_TERMINATED_BARE = "terminate called without an active exception"
_NO_PYTHON = "  <no Python frame>"
_FRAME = "  File "
_TEARDOWN = 10.0  # seconds that Python with torch may need from an exception to its end
_SAME_CLOCK = 0.05  # seconds that a file system's clock may be off ours
_TRIES = 5
_COARSE = 0.02  # seconds that the kernel's clock for files lags behind


def last_line(text: str) -> str:
    """Return the line that says why, at most 500 characters; "" for no text.

    That is the last exception of a traceback; else what C++ or Python said when it gave up; else the last
    line that is no frame of a stack and no warning; else the last that is at least no warning. An abort in
    the end of Python hides none of them.
    """
    lines = _without_abort_at_the_end(_lines(text))
    return (_exception(lines) or _giving_up(lines) or _last(lines))[:_LONGEST]


def when_raised(text: str, err: str, beside: str, ended: float, by_signal: bool) -> float | None:
    """Return when a rank raised the exception it ended with: when its stderr was last written to.

    A rank ends up to seconds after that, so that of two the one that raised first may end last.

    Args:
        text: the end of its stderr.
        err: the file.
        beside: a file that may be written, on the same disk.
        ended: when the process ended.
        by_signal: it did not end by itself, so that its last exception may be one that it had caught. What
            torch's excepthook has printed ("[rank3]: Traceback") was not.

    Returns:
        Epoch seconds of this host's clock; None where there is no exception, or the file has the time of
        another clock (that of a file server), or it was written to too long before.
    """
    if not _exception(_lines(text)) or (by_signal and not _UNCAUGHT.search(text)):
        return None
    try:
        said = os.stat(err).st_mtime
        known = any(_is_our_clock(beside) for _ in range(_TRIES)) and -_COARSE <= ended - said <= _TEARDOWN
    except OSError:
        return None
    return min(said, ended) if known else None


def _is_our_clock(path: str) -> bool:
    """Tell whether a file that is written now has our time; False too where a busy host holds us up."""
    with open(path, "wb") as file:
        file.write(b" ")
    return abs(os.stat(path).st_mtime - time.time()) < _SAME_CLOCK


def _lines(text: str) -> list[str]:
    shown = (_RANK.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n"))
    return [line for line in shown if line.strip()]


def _without_abort_at_the_end(lines: list[str]) -> list[str]:
    """Return what stood before the abort of a process that had ended its script; all lines for any other.

    gloo's threads (torch 2.13) may still be there when a script has called `exit`, and abort the process now
    and then. That is not why it called it.
    """
    if _TERMINATED_BARE not in lines:
        return lines
    where = lines.index(_TERMINATED_BARE)
    before, after = lines[:where], lines[where:]
    ended = _NO_PYTHON in after and not any(line.startswith(_FRAME) for line in after)
    return before if ended and any(not _NO_REASON.match(line) for line in before) else lines


def _exception(lines: list[str]) -> str:
    found = ""
    for index, line in enumerate(lines):
        if not line.startswith(_TRACEBACK) or (index and lines[index - 1].startswith(_AFTERWARDS)):
            continue
        after = (other for other in lines[index + 1 :] if not other.startswith((" ", "\t", "Traceback")))
        found = next(after, found)
    return found


def _giving_up(lines: list[str]) -> str:
    """Return the words of an uncaught C++ exception (NCCL's watchdog), or of Python's own end."""
    for pattern in (_TERMINATED, _FATAL):
        for line in reversed(lines):
            match = pattern.match(line)
            if match:
                return match[1] if match.groups() else line
    return ""


def _last(lines: list[str]) -> str:
    told = [line for line in lines if not _NO_REASON.match(line)]
    rest = told or [line for line in lines if not _WARNING.match(line)]
    return rest[-1] if rest else ""
