"""The rank script, but whoever fails waits until every rank of the world has reported.

A rank that fails while others are still starting is a case of its own; the rest want to see what the failure
does to ranks that run.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "testbed"))

import rank_script

fail = rank_script.fail


def fail_when_all_run(options):
    """Fail as told once every rank has written its report."""
    while len(list(options.report.glob("rank-*.json"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.02)
    fail(options)


rank_script.fail = fail_when_all_run
rank_script.main()
