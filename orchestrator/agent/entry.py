"""What `agent.pyz` does when it is run: `agent`, `rank` or `late-launch`."""

from __future__ import annotations

import contextlib
import os
import sys


def main(argv: list[str]) -> int:
    """Dispatch on the first word; each branch imports only what it needs, as ranks start by the hundred."""
    if argv[0] == "rank":
        from .rank import main as run_rank  # noqa: PLC0415

        return run_rank(argv[1:])
    if argv[0] == "late-launch":
        from .late_launch import main as run_late  # noqa: PLC0415

        return run_late(argv[1:])
    if argv[0] == "agent":
        return _agent(*argv[1:])
    print(f"agent.pyz: no such command {argv[0]!r}", file=sys.stderr)
    return 2


def _agent(run_dir: str, attempt_dir: str, host_name: str) -> int:
    from . import keeper  # noqa: PLC0415
    from .control_file import load  # noqa: PLC0415
    from .main import LEASE_RAN_OUT  # noqa: PLC0415
    from .main import main as run_agent  # noqa: PLC0415

    config, host, shared = load(run_dir, attempt_dir, host_name)
    mark = f"{config['run_id']}/{config['attempt']}/{host['index']}"
    code = keeper.keep(mark, lambda *given: run_agent(run_dir, attempt_dir, host_name, *given))
    if not shared or code == LEASE_RAN_OUT:
        _forget(os.path.join(run_dir, "secrets.env"), os.path.join(attempt_dir, "control.json"))
    return code


def _forget(*paths: str) -> None:
    """Remove what is secret where no supervisor does: from a disk that is not its own, or when it is gone."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
