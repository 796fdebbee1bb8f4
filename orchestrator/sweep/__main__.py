"""`python -m orchestrator.sweep SWEEP_DIR [LOCK]`: run its points; LOCK: a descriptor that holds its lock."""

import sys
from pathlib import Path

from orchestrator.sweep.drive import drive
from orchestrator.sweep.sweepdir import SweepDir

sys.exit(drive(SweepDir(Path(sys.argv[1])), *map(int, sys.argv[2:])))
