"""What the keys of the screen do to a run; each says in words what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.errors import OrchestratorError
from orchestrator.monitor.cancel import cancel
from orchestrator.words import counted

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir

_WIDTH = 64  # columns of the text on a terminal of 80


class Actions:
    """Cancel and diagnose for one run.

    Args:
        run: the run.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run

    def question(self) -> str:
        """Return what to ask before the run is ended."""
        try:
            plan = self._run.latest_plan()
            what = f"on {counted(len(plan.hosts), 'host')} ({counted(plan.world_size, 'rank')})"
            how = f"SIGTERM to every rank, SIGKILL after {plan.grace:g} s."
        except (OSError, ValueError, IndexError):
            what, how = "on every host", "SIGTERM to every rank, SIGKILL after the grace time."
        if self._run.slurm_job() and "supervisor" not in self._run.record():
            how = "Its Slurm job has not begun, and is taken from the queue."
        return f"End {self._run.run_id} {what}?\n{how}"

    def cancel(self) -> str:
        """End the run and wait for it."""
        try:
            state, said = cancel(self._run)
        except (OrchestratorError, OSError, ValueError) as error:
            return f"could not end it: {error}"
        return f"{state}: {said}"

    def diagnose(self) -> str:
        """Return the diagnosis as text: sentence, category, evidence, what to try."""
        try:
            from orchestrator.diagnose import diagnose  # noqa: PLC0415 - reads patterns; only `d` needs it
            from orchestrator.diagnose.show import screen  # noqa: PLC0415

            lines = screen(self._run, diagnose(self._run), width=_WIDTH)
            return click.unstyle("\n".join(lines)) or "nothing has failed"
        except Exception as error:  # noqa: BLE001 - a file of an odd kind must not end the screen
            reason = self._run.status()["reason"]
            return f"{reason}\n\n(no diagnosis: {type(error).__name__}: {error})".strip()
