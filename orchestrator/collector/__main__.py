"""`python -m orchestrator.collector RUN_DIR ATTEMPT`: collect until the standard input ends."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.collector.collect import collect
from orchestrator.rundir import RunDir

collect(RunDir(Path(sys.argv[1])), int(sys.argv[2]))
