"""The texts that a diagnosis looks through: ends of logs as numbered lines, without colours and prefixes."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL = 256 << 10  # bytes of a log that are looked through: an error is near the end of what its rank said
_COUNTED = 1 << 30  # bytes before them whose lines are counted; in a longer log, lines have no number
_LONGEST = 2000  # characters of a line
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# torch 2.13 puts "[rank3]: " before the lines of an uncaught exception once the process group is there;
# rich draws a frame around its tracebacks.
_PREFIX = re.compile(r"^(?:\[rank\d+\]:\s?|\[std(?:err|out)\]:?\s?)+|^[│╭╰]\s?|\s*[│╮╯]\s*$")
_TRACEBACK = re.compile(r"^(?:\s*|.*─ ?)Traceback \(most recent call last\)")
_AT_THE_END = re.compile(r"^(Exception ignored (in|while)|Error in atexit|Error in sys.excepthook)")
_ONE_CHAIN = re.compile(r"^(During handling of the above exception|The above exception was the direct cause)")
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Failure|Warning|Stop|Timeout)\b)"
)
_FRAME = re.compile(r'\s*File ".+", line \d+')
_INSTALLED = re.compile(r"site-packages|dist-packages|/lib/python3|<frozen|<string>")
_STACK_OF_CRASH = re.compile(r"^(Current thread|Thread) .*most recent call first")
_MESSAGE_LINES = 30
_INFO = " NCCL INFO "  # tells of plugins that "cannot open shared object file" and other things that are well


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        number: from 1; None where the file is too long to count.
        end: offset of its last byte's successor in the file.
    """

    text: str
    number: int | None = None
    end: int = 0


@dataclass(frozen=True)
class Text:
    """Lines of one origin.

    Attributes:
        kind: whose words these are: message, raised, error, output, host, launcher, event, summary.
        file: path below the run directory; "" for none.
    """

    kind: str
    file: str
    lines: tuple[Line, ...]

    @cached_property
    def joined(self) -> str:
        """Return the lines as one text, which one regular expression can be searched in at once."""
        return "\n".join(line.text for line in self.lines)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(line.text) + 1 for line in self.lines)]

    def line_at(self, position: int) -> Line:
        """Return the line that holds a position of `joined`."""
        return self.lines[max(0, min(len(self.lines), bisect_right(self._starts, position)) - 1)]


def text_of(kind: str, words: str, file: str = "") -> Text:
    """Return words that are no file's own as a text."""
    return Text(kind, file, tuple(Line(_clean(line)) for line in words.splitlines()))


def read_end(kind: str, path: Path, base: Path, leave_out: str = "") -> Text:
    """Return the end of a log, cleaned; no lines if it cannot be read.

    Args:
        kind: see Text.
        path: the log.
        base: the run directory.
        leave_out: lines that begin so are left out.
    """
    name = os.path.relpath(path, base)
    try:
        first, offset, data = _tail(path)
    except OSError:
        return Text(kind, name, ())
    lines = []
    for index, raw in enumerate(data.split(b"\n")):
        offset += len(raw) + 1
        text = _clean(raw.decode("utf-8", "replace"))
        if text.strip() and _INFO not in text and not (leave_out and text.startswith(leave_out)):
            lines.append(Line(text, None if first is None else first + index, offset))
    return Text(kind, name, tuple(lines))


def _tail(path: Path) -> tuple[int | None, int, bytes]:
    """Return number and offset of the first line of a file's end, and that end, from a line's beginning."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL)
        file.seek(start)
        data = file.read(_TAIL)
        if start == 0:
            return 1, 0, data
        cut = data.find(b"\n") + 1
        if start > _COUNTED:
            return None, start + cut, data[cut:]
        file.seek(0)
        before, left = 0, start
        while left and (piece := file.read(min(left, 1 << 20))):
            before += piece.count(b"\n")
            left -= len(piece)
    return before + 1 + (1 if cut else 0), start + cut, data[cut:]


def _clean(line: str) -> str:
    """Return a line as a terminal shows it: what came after the last carriage return, without colours."""
    shown = line.rstrip("\r").rsplit("\r", 1)[-1]
    return _PREFIX.sub("", _ANSI.sub("", shown)).rstrip()[:_LONGEST]


def raised(error: Text) -> Text:
    """Return the exception that a rank ended with: its traceback, and those of the exceptions that led to it.

    Tracebacks that Python prints of objects being taken down ("Exception ignored in", atexit) come after it
    and have nothing to do with it (DeepSpeed's CPUAdam without a compiler: "no attribute 'ds_opt_adam'").
    """
    chains: list[tuple[int, int]] = []
    follows = False
    lines = error.lines
    index = 0
    while index < len(lines):
        text = lines[index].text
        if not _TRACEBACK.match(text):
            follows = bool(_ONE_CHAIN.match(text)) or follows
            index += 1
            continue
        end = _end_of_traceback(lines, index)
        if not (index and _AT_THE_END.match(lines[index - 1].text)):
            begin = chains.pop()[0] if follows and chains else index
            chains.append((begin, end))
        follows, index = False, end
    begin, end = chains[-1] if chains else (0, 0)
    return Text("raised", error.file, lines[begin:end])


def _end_of_traceback(lines: tuple[Line, ...], start: int) -> int:
    """Return the index after the exception's message, which may have several lines."""
    index = start + 1
    while index < len(lines) and not _is_exception(lines[index].text):
        if _TRACEBACK.match(lines[index].text):
            return index
        index += 1
    index += 1
    last = min(len(lines), index + _MESSAGE_LINES)
    while index < last and not _ends_message(lines[index].text):
        index += 1
    return min(index, len(lines))


def _is_exception(text: str) -> bool:
    return not text.startswith((" ", "\t", "─", "~", "^")) and bool(text.strip())


def _ends_message(text: str) -> bool:
    return bool(
        _TRACEBACK.match(text)
        or _ONE_CHAIN.match(text)
        or _AT_THE_END.match(text)
        or re.match(r"^(\[[WEI\d]|[WEI]\d{4} |terminate called|Fatal Python error|frame #)", text)
    )


def is_exception(message: str) -> bool:
    """Tell whether a message is how Python ends a traceback: `ValueError: …`."""
    return bool(_EXCEPTION.match(message))


def own_frame(chain: Text) -> Line | None:
    """Return the innermost line of a traceback in the user's own code, not in an installed package."""
    frames = [line for line in chain.lines if _FRAME.match(line.text)]
    own = [line for line in frames if not _INSTALLED.search(line.text)]
    found = own or frames
    return found[-1] if found else None


def crash_frame(error: Text) -> Line | None:
    """Return where Python stood in the user's own code when it crashed, as faulthandler has written it."""
    begin = next((i for i, line in enumerate(error.lines) if _STACK_OF_CRASH.match(line.text)), None)
    frames = [line for line in error.lines[begin:] if _FRAME.match(line.text)] if begin is not None else []
    return next((line for line in frames if not _INSTALLED.search(line.text)), frames[0] if frames else None)
