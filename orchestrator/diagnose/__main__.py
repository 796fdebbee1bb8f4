"""Write `diagnosis.json` of a run that has ended: `python -m orchestrator.diagnose RUN_DIR`.

A process of its own: a regular expression of a user's file that never ends holds nothing up but this.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.diagnose.make import diagnose
from orchestrator.rundir import RunDir, write_json


def main(path: str) -> None:
    """Diagnose a run and keep the diagnosis beside its verdict."""
    run = RunDir(Path(path))
    write_json(run.diagnosis_file, diagnose(run).to_json())


if __name__ == "__main__":
    main(sys.argv[1])
