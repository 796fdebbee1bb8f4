"""Tell of the end of a run that left no verdict of its own: whoever finds that out has it told."""

from __future__ import annotations

import contextlib
import json
import subprocess
from typing import TYPE_CHECKING

from orchestrator.notify.store import take_values

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir


def tell_of_end(run: RunDir) -> None:
    """Have the end of a run told by a process of its own, once; return at once.

    It is for runs whose supervisor is gone for good. The process gets the values on its input, as others can
    read its arguments.
    """
    if not run.notify_file.exists():
        return
    values = take_values(run)
    if values is None:
        return
    with contextlib.suppress(OSError, ValueError):  # no plan of this version: there is nobody to tell
        process = subprocess.Popen(
            [run.plan().supervisor_python, "-m", "orchestrator.notify", str(run.path)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.returncode = 0  # it outlives us: not ours to wait for
        if process.stdin is not None:
            with process.stdin:
                process.stdin.write(json.dumps(values).encode())
