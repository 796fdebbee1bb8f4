"""Have `diagnosis.json` written once the verdict stands; whatever comes of it, the run has ended already."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

_SECONDS = 20.0  # on a machine that is busy; a reader that finds no diagnosis makes its own


def write_diagnosis(run_dir: RunDir) -> None:
    """Diagnose a run in a process that has two seconds of a core: a user's expression may take for ever."""
    argv = [sys.executable, "-m", "orchestrator.diagnose", str(run_dir.path)]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(argv, stdin=subprocess.DEVNULL, check=False, timeout=_SECONDS)
