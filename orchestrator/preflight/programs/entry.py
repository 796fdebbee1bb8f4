"""What the zip does: `programs.pyz NAME REQUEST`, for the programs pairwise, ops and reach.

A request is a JSON object or text, or the path of a file with one.
"""

from __future__ import annotations

import importlib
import json
from typing import List

_PROGRAMS = ("pairwise", "ranks", "ops", "reach")  # ranks is what pairwise starts of itself


def main(argv: List[str]) -> int:
    """Run one program; each imports only what it needs."""
    name, given = argv
    if name not in _PROGRAMS:
        raise SystemExit(f"no program {name!r}; there are {', '.join(_PROGRAMS)}")
    program = importlib.import_module(f".{name}", __package__)
    return int(program.main(json.loads(_text(given))))


def _text(given: str) -> str:
    if given[:1] in ("{", '"'):
        return given
    with open(given, encoding="utf-8") as file:
        return file.read()
