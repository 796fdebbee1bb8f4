"""Job files for common cases, to begin with: each a file of `examples/templates`.

What a template needs beside it (a hostfile, a DeepSpeed file) is in the folder of its name.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import JobFileError, Problem


@dataclass(frozen=True)
class Template:
    """A job file to begin with: its name, its file, its first line, and the files that go beside it."""

    name: str
    path: Path
    about: str
    others: tuple[Path, ...] = ()


def folder() -> Path:
    """Return where they are: inside an installed package, or beside the package in a checkout."""
    inside = Path(__file__).parent / "templates"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "examples" / "templates"


def templates() -> list[Template]:
    """Return all of them by name."""
    return [
        Template(path.stem, path, _about(path), tuple(sorted(path.with_suffix("").glob("*"))))
        for path in sorted(folder().glob("*.yaml"))
    ]


def find_template(name: str) -> Template:
    """Return the template of that name.

    Raises:
        JobFileError: there is none; says which there are.
    """
    known = {template.name: template for template in templates()}
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, 1, 0.5)
    fix = f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"
    raise JobFileError(Problem("there is no such template", "--from", name, fix))


def _about(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return lines.readline().lstrip("# ").rstrip("\n.")
