"""`python -m orchestrator.collector RUN_DIR ATTEMPT`: collect until the standard input says `end`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from orchestrator.collector.collect import collect
from orchestrator.rundir import RunDir

signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that starts us has some blocked
collect(RunDir(Path(sys.argv[1])), int(sys.argv[2]))
