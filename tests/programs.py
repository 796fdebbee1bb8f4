"""The programs of `orchestrate check`, run as they are on a host: the zip, a request, lines of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.preflight.probes.answers import PREFIX
from orchestrator.preflight.program_zip import NAME, program_zip

if TYPE_CHECKING:
    from collections.abc import Sequence


CPU_ADAM = {"ops": {"cpu": ["cpu_adam"]}}
"""A request for the program ops."""


def write_programs(folder: Path) -> Path:
    """Write the zip file of the programs into a folder."""
    path = folder / NAME
    path.write_bytes(program_zip())
    return path


def command(
    path: Path, program: str, request: object, python: Sequence[str] = (sys.executable,)
) -> list[str]:
    """Return the command line of a program."""
    return [*python, str(path), program, json.dumps(request)]


def answers(output: str) -> list[dict[str, Any]]:
    """Return the objects of a program's lines."""
    lines = [line for line in output.splitlines() if line.startswith(PREFIX)]
    return [json.loads(line[len(PREFIX) :]) for line in lines]


def ask(path: Path, program: str, request: object, **options: Any) -> dict[str, Any]:
    """Run a program and return the data of its one answer."""
    python = options.pop("python", (sys.executable,))
    done = subprocess.run(
        command(path, program, request, python),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        **options,
    )
    (answer,) = answers(done.stdout)
    assert answer["probe"] == program
    data: dict[str, Any] = answer["data"]
    return data


def environment(**more: str) -> dict[str, str]:
    """Return variables as node.sh leaves them: what is installed beside python is on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/root"), "DS_ACCELERATOR": "cpu", **more}
