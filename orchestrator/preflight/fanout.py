"""One visit to every host, over the very launcher, scripts and ssh configuration that a run would use.

A visit has a run directory of its own, `.check-XXXX` beside those of runs, which is gone afterwards. Its
`agent.pyz` is not the agent but the probes; everything else is what submit would write.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import submit
from orchestrator.preflight.round import Round, Visited
from orchestrator.preflight.values import HostAnswer, Visit
from orchestrator.render import render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.prepare import Prepared

__all__ = ["HostAnswer", "Visit", "Visited", "bare", "check_id", "run_everywhere", "visit"]

_OVER_SSH = ("pdsh", "ssh")  # the other launchers end what they have started
_SWEEP_CONNECT = 10  # seconds, with sshd's greeting, which a busy host is slow to send
_SWEEP_SECONDS = 20.0
MARK = ".check-"
"""Begins the name of a visit's run directory; lists of runs leave hidden folders out."""


def check_id() -> str:
    """Return a new id for the run directory of a visit."""
    return f"{MARK}{secrets.token_hex(4)}"


def run_everywhere(
    prepared: Prepared,
    argv: Callable[[PlannedHost], list[str]],
    files: Mapping[str, bytes],
    timeout: float,
) -> dict[str, HostAnswer]:
    """Run a command on every host, in the environment of a run, and return what came back, by host name.

    Args:
        prepared: the job; on Slurm, inside an allocation.
        argv: gives a host's command; no words for none. A first word "python" is the python of the run.
        files: to bring along, by name; the command starts in their folder.
        timeout: seconds for all of it.

    Raises:
        SubmitError: this machine cannot start anything there.
    """
    programs = {host.alias: [words] for host in prepared.plan.hosts if (words := argv(host))}
    return visit(prepared, Visit(programs=programs, files=files, seconds=timeout)).answers


def visit(prepared: Prepared, asked: Visit) -> Visited:
    """Visit every host of a job; afterwards nothing of it is left anywhere.

    Raises:
        SubmitError: this machine cannot start anything there.
    """
    root = Path(prepared.plan.run_dir).parent
    # A container's mounts name the run directory, so a plan that was made for a check keeps its own.
    own = prepared.plan.run_id.startswith(MARK)
    run_id = prepared.plan.run_id if own else check_id()
    made = next((folder for folder in reversed([root, *root.parents]) if not folder.exists()), None)
    plan = replace(prepared.plan, run_id=run_id, run_dir=str(root / run_id))
    run_dir = submit.create(replace(prepared, plan=plan, files=render(plan)))
    made_round = Round(plan, run_dir, asked)
    try:
        return asyncio.run(made_round.run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None  # told to end by another signal than Ctrl-C's
    finally:
        shutil.rmtree(run_dir.path, ignore_errors=True)
        try:
            if made_round.late and plan.backend in _OVER_SSH and not asked.sweep:
                _sweep(prepared, made_round.late, plan.run_dir)
        finally:
            shutil.rmtree(run_dir.path, ignore_errors=True)  # what a late host wrote into it meanwhile
            if made is not None:
                _remove_empty(root, made)


def _sweep(prepared: Prepared, hosts: Sequence[PlannedHost], run_dir: str) -> None:
    """End what still runs of a visit on hosts that were late: a line of train.setup that hangs.

    sshd leaves a command alone whose connection is gone, and until the probes have started nobody on the
    host looks after it.
    """
    plan = bare(prepared.plan, hosts)
    plan = replace(plan, ssh=replace(plan.ssh, connect_timeout=_SWEEP_CONNECT))
    visit(replace(prepared, plan=plan), Visit(probes=("sweep",), sweep=run_dir, seconds=_SWEEP_SECONDS))


def bare(plan: LaunchPlan, hosts: Sequence[PlannedHost]) -> LaunchPlan:
    """Return a plan for some hosts without what the job file has the start script do there.

    It has an id of its own: a host that was sent the run directory has the old start script there still.
    """
    plain = replace(
        plan, control_port=0, workdir="/", snapshot=False, setup=(), env={}, secrets=(), templates=None
    )
    return replace(plain, run_id=check_id(), hosts=tuple(hosts), python="python3", container=None)


def _remove_empty(folder: Path, last: Path) -> None:
    """Take back the folders that were made for the run directory, from `folder` up to `last`."""
    with contextlib.suppress(OSError):
        while folder.is_relative_to(last):
            folder.rmdir()
            folder = folder.parent
