"""Write `diagnosis.json` of a run that has ended: `python -m orchestrator.diagnose RUN_DIR`.

A process of its own, which the kernel ends when it has used two seconds of a core: a regular expression of
a user's file that never ends holds nothing up for longer.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from orchestrator.diagnose.make import diagnose
from orchestrator.rundir import RunDir, write_json

_CPU_SECONDS = 2


def main(path: str) -> None:
    """Diagnose a run and keep the diagnosis beside its verdict."""
    run = RunDir(Path(path))
    write_json(run.diagnosis_file, diagnose(run).to_json())


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    main(sys.argv[1])
