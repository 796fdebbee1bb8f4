"""What of a log's bytes is shown: no broken text, the last state of a progress bar, colours or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~]?)"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RESET = "\x1b[0m"


@dataclass(frozen=True)
class Texts:
    """How lines become texts.

    Attributes:
        pattern: only texts in which it is found; it never sees colours.
        bars: every state of a progress bar is a text, not only the last one before the line's end.
        colours: keep colours, and nothing else that a terminal would act on. Else all codes are left out.
    """

    pattern: re.Pattern[str] | None = None
    bars: bool = False
    colours: bool = False

    def of(self, line: bytes) -> list[str]:
        """Return the texts of one line, which may end as a line does."""
        text = line.removesuffix(b"\n").decode("utf-8", "replace")
        states = self._states(text) if "\r" in text else [text]
        if self.pattern is None and "\x1b" not in text and not self.colours:
            return states
        return [shown for state in states if (shown := self._shown(state)) is not None]

    def each(self, data: bytes) -> Iterator[str]:
        """Yield the texts of some whole lines."""
        if self.pattern is None and not self.colours and b"\x1b" not in data and b"\r" not in data:
            yield from data.removesuffix(b"\n").decode("utf-8", "replace").split("\n")
            return
        for line in data.removesuffix(b"\n").split(b"\n"):
            yield from self.of(line)

    def _states(self, text: str) -> list[str]:
        """Return what a terminal would have shown one after the other, or at the end."""
        states = [state for state in text.split("\r") if state.strip()]
        return (states if self.bars else states[-1:]) or [""]

    def _shown(self, text: str) -> str | None:
        plain = _ESCAPE.sub("", text) if "\x1b" in text else text
        if self.pattern is not None and not self.pattern.search(plain):
            return None
        return _for_terminal(text) if self.colours else plain


def _for_terminal(text: str) -> str:
    """Keep colours; a log must not move the cursor, set the title or ring the bell."""
    if "\x1b" not in text:
        return _CONTROL.sub("", text)
    kept = _ESCAPE.sub(lambda found: found[0] if _COLOUR.fullmatch(found[0]) else "", text)
    parts = _COLOUR.split(kept)
    codes = [*_COLOUR.findall(kept), ""]
    clean = "".join(_CONTROL.sub("", part) + code for part, code in zip(parts, codes, strict=True))
    return clean + _RESET if len(codes) > 1 else clean
