"""Put as `sitecustomize` before a supervisor: tells it to end in a moment in which it does not listen.

`TOLD_AT` names the moment: `start`, before its own code is imported, by a user who has just made the file
`cancel`; `begin`, when it takes its run; `verdict`, when its last word is being written.
"""

import os
import signal
import sys
from pathlib import Path

WHEN = os.environ.get("TOLD_AT", "")
RUN_DIR = Path(sys.orig_argv[-1])
MOMENTS = {
    "start": ("import", "orchestrator.supervisor.run"),
    "begin": ("open", str(RUN_DIR / "supervisor.lock")),
    "verdict": ("os.rename", str(RUN_DIR / "verdict.json")),
}


def tell(event: str, args: tuple) -> None:
    kind, name = MOMENTS[WHEN]
    if event != kind or name not in map(str, args):
        return
    if WHEN == "start":
        (RUN_DIR / "cancel").touch()
    os.kill(os.getpid(), signal.SIGTERM)


if WHEN and (RUN_DIR / "plan.json").exists():
    sys.addaudithook(tell)
