"""`python -m orchestrator.supervisor RUN_DIR`, which is what `launch.sh` runs."""

import sys
from pathlib import Path

from orchestrator.supervisor.run import supervise

if len(sys.argv) != 2:
    sys.exit("usage: python -m orchestrator.supervisor RUN_DIR")
sys.exit(supervise(Path(sys.argv[1])))
