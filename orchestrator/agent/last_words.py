"""The line of a rank's stderr that most likely says why it ended."""

from __future__ import annotations

import re

_LONGEST = 500
# torch 2.13 puts this before every line of an uncaught exception once the process group is there.
_RANK = re.compile(r"^(?:\[rank\d+\]:\s?)+")
_TRACEBACK = "Traceback (most recent call last)"
# Python takes objects down after the exception: what these raise has nothing to do with it.
_AFTERWARDS = ("Exception ignored ", "Error in atexit", "Error in sys.excepthook")
_TERMINATED = re.compile(r"^\s*what\(\):\s*(.+)")
_FATAL = re.compile(r"^Fatal Python error: ")
# Frames of C++ and of faulthandler, and log lines of torch that come after the reason.
_NO_REASON = re.compile(
    r"^(frame #\d+|\s+File \"|(Current thread|Thread) 0x|Extension modules:|Exception raised from |"
    r"\[?[WI]\d{3,4}[ \]]|\[W[\d. ]|terminate called|\s*warnings\.warn\(|.*resource_tracker|"
    r"\s+<no Python frame>)"
)


def last_line(text: str) -> str:
    """Return the line that says why, at most 500 characters; "" for no text.

    That is the last exception of a traceback; else what C++ or Python said when it gave up; else the last
    line that is no frame of a stack and no warning; else the last line.
    """
    shown = (_RANK.sub("", line).rstrip() for line in text.replace("\r", "\n").split("\n"))
    lines = [line for line in shown if line.strip()]
    return (_exception(lines) or _giving_up(lines) or _last(lines))[:_LONGEST]


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
    told = (line for line in reversed(lines) if not _NO_REASON.match(line))
    return next(told, lines[-1] if lines else "")
