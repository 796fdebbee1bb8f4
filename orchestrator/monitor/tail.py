"""Read growing files line by line, whatever is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20
_LONGEST = 1 << 16  # characters of an unfinished line that are held back


class Tail:
    """The new lines of one file since the last look; a progress bar's carriage returns end lines too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""
        self._after_return = False

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Yield complete lines; with `last` also the unfinished one at the end of the file."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                while data := file.read(_CHUNK):
                    self._offset += len(data)
                    yield from self._split(data)
        except FileNotFoundError:
            return
        if last and self._rest:
            rest, self._rest = self._rest, b""
            yield rest.decode("utf-8", "replace")

    def _split(self, data: bytes) -> Iterator[str]:
        if self._after_return and data.startswith(b"\n"):
            data = data[1:]  # the other half of a line's end
        self._after_return = data.endswith(b"\r")
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            yield line.decode("utf-8", "replace")
