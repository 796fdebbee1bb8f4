"""What the zip does: `programs.pyz NAME REQUEST`, a JSON value, for the programs pairwise, ops and reach."""

from __future__ import annotations

import importlib
import json
from typing import List

_PROGRAMS = ("pairwise", "ranks", "ops", "reach")  # ranks is what pairwise starts of itself


def main(argv: List[str]) -> int:
    """Run one program; each imports only what it needs."""
    name, request = argv
    if name not in _PROGRAMS:
        raise SystemExit(f"no program {name!r}; there are {', '.join(_PROGRAMS)}")
    program = importlib.import_module(f".{name}", __package__)
    return int(program.main(json.loads(request)))
