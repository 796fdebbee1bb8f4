"""A job file in the making: its keys, where each came from, and what could not be carried."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["carried", "changed", "not carried"]


@dataclass(frozen=True)
class Note:
    """What became of one thing that was said: where it stands, and what is said of it now.

    Attributes:
        kind: carried as it is; changed, so look at it; or not carried, with the reason.
        source: where it stands: file and line, key, or option.
        text: what became of it.
    """

    kind: Kind
    source: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the note for scripts."""
        return asdict(self)


@dataclass
class Draft:
    """A job file in the making.

    Attributes:
        cwd: folder that relative paths of a command line start at; absolute.
        data: the job file's document. A relative path is an absolute `Path` until it is written.
        notes: in the order they were made.
        comments: for the job file, by key path.
    """

    cwd: Path
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    comments: dict[str, str] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """Return the value at a key path, None where there is none."""
        value: Any = self.data
        for step in key.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value

    def put(self, key: str, value: Any) -> None:
        """Set the value at a key path and say nothing about it."""
        *sections, last = key.split(".")
        section = self.data
        for step in sections:
            section = section.setdefault(step, {})
        section[last] = value

    def carry(self, source: str, key: str, value: Any) -> None:
        """Set a value that says what the source says."""
        self.put(key, value)
        self.notes.append(Note("carried", source, f"{key}: {_shown(value)}"))

    def say(self, source: str, text: str) -> None:
        """Note what is carried by other means than one key's value."""
        self.notes.append(Note("carried", source, text))

    def change(self, source: str, text: str, key: str = "", value: Any = None) -> None:
        """Note what is not quite what the source says; set a value if a key is given."""
        if key:
            self.put(key, value)
            text = f"{key}: {_shown(value)}, {text}"
        self.notes.append(Note("changed", source, text))

    def drop(self, source: str, reason: str) -> None:
        """Note what is not carried, and why."""
        self.notes.append(Note("not carried", source, reason))

    def path(self, text: str) -> str | Path:
        """Return a path as the draft holds it: one from the root or a home as text, else absolute."""
        return text if text.startswith(("/", "~")) else self.cwd / text

    def of_kind(self, kind: Kind) -> Iterator[Note]:
        """Yield the notes of one kind."""
        return (note for note in self.notes if note.kind == kind)


def _shown(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return str(value)


def located(path: str | Path) -> Path:
    """Return where a draft's path is on this machine."""
    return Path(path).expanduser()
