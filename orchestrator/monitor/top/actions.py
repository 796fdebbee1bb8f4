"""What the keys of the screen do to a run; each says in words what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError
from orchestrator.monitor.cancel import cancel

if TYPE_CHECKING:
    from orchestrator.rundir import RunDir


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
            what = f"on {len(plan.hosts)} hosts ({plan.world_size} ranks)"
            how = f"SIGTERM to every rank, SIGKILL after {plan.grace:g} s."
        except (OSError, ValueError, IndexError):
            what, how = "on every host", "SIGTERM to every rank, SIGKILL after the grace time."
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

            return diagnosis_text(diagnose(self._run).to_json())
        except Exception as error:  # noqa: BLE001 - a file of an odd kind must not end the screen
            reason = self._run.status()["reason"]
            return f"{reason}\n\n(no diagnosis: {type(error).__name__}: {error})".strip()


def diagnosis_text(found: dict[str, Any]) -> str:
    """Return a diagnosis, as diagnosis.json holds it, as a text to read."""
    parts = [str(found.get("summary") or "nothing has failed")]
    parts += [f"category   {found['category']}"] if found.get("category") else []
    parts += [f"time       {found['time_text']}"] if found.get("time_text") else []
    if found.get("advice"):
        parts.append("\nwhat to try")
        parts += [f"  - {line}" for line in found["advice"]]
    if found.get("evidence"):
        parts.append("\nevidence")
        parts += [_evidence(one) for one in found["evidence"]]
    return "\n".join(parts)


def _evidence(one: dict[str, Any]) -> str:
    where = f"{one.get('file')}:{one['line']}" if one.get("line") else str(one.get("file"))
    text = str(one.get("text", "")).strip().replace("\n", "\n    ")
    return f"  {where}\n    {text}"
