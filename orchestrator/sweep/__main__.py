"""`python -m orchestrator.sweep SWEEP_DIR`: run a sweep's points one after another."""

import sys
from pathlib import Path

from orchestrator.sweep.drive import drive
from orchestrator.sweep.sweepdir import SweepDir

sys.exit(drive(SweepDir(Path(sys.argv[1]))))
