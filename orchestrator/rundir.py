"""The run directory: the one class that knows where everything of a run is.

    <run_root>/<run_id>/
        job.yaml record.json plan.json status.json events.jsonl metrics.jsonl verdict.json diagnosis.json
        launch.sh supervisor.log secrets.env notify.json workdir/ cancel
        slurm.sbatch slurm.json slurm-JOB.out ds_source.json
        attempt-N/control.json launcher.log plan.json hosts.json verdict.json evidence.json
        attempt-N/clocks.json
        attempt-N/rendered/ logs/ errors/ dumps/

Files that decide something are written under a temporary name and renamed, so that a reader never sees
half of one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from orchestrator.agent.processes import read_process
from orchestrator.plan import LaunchPlan
from orchestrator.states import State

if TYPE_CHECKING:
    from pathlib import Path


class RunDir:
    """One run's directory.

    Args:
        path: the directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.job_file = self.path / "job.yaml"
        self.plan_file = self.path / "plan.json"
        self.record_file = self.path / "record.json"
        self.status_file = self.path / "status.json"
        self.events_file = self.path / "events.jsonl"
        self.metrics_file = self.path / "metrics.jsonl"
        self.metrics_state_file = self.path / ".metrics.json"
        self.diagnosis_file = self.path / "diagnosis.json"
        self.verdict_file = self.path / "verdict.json"
        self.cancel_file = self.path / "cancel"
        self.supervisor_log = self.path / "supervisor.log"
        self.secrets_file = self.path / "secrets.env"
        self.notify_file = self.path / "notify.json"
        self.workdir = self.path / "workdir"
        self.batch_script = self.path / "slurm.sbatch"
        self.slurm_file = self.path / "slurm.json"
        self.ds_source = self.path / "ds_source.json"
        self.starting_file = self.path / ".starting.json"
        self._reserve_file = self.path / ".reserve"

    @property
    def run_id(self) -> str:
        """Return the run's id, which is the directory's name."""
        return self.path.name

    def attempt(self, number: int) -> AttemptDir:
        """Return one attempt's part of the directory."""
        return AttemptDir(self.path / f"attempt-{number}")

    def attempts(self) -> list[AttemptDir]:
        """Return the attempts there are, first to last."""
        numbers = (p.name.removeprefix("attempt-") for p in self.path.glob("attempt-*") if p.is_dir())
        return [self.attempt(number) for number in sorted(int(n) for n in numbers if n.isdigit())]

    def plan(self, attempt: AttemptDir | None = None) -> LaunchPlan:
        """Read the launch plan: an attempt's own where it has one, else the one made at submit.

        Raises:
            OSError, ValueError: there is none, or none of this version.
        """
        own = attempt is not None and attempt.plan_file.is_file()
        path = attempt.plan_file if attempt is not None and own else self.plan_file
        return LaunchPlan.from_json(path.read_text(encoding="utf-8"))

    def latest_plan(self) -> LaunchPlan:
        """Read the plan of the last attempt: on Slurm, the hosts that it was given."""
        attempts = self.attempts()
        return self.plan(attempts[-1] if attempts else None)

    def slurm_job(self) -> dict[str, Any]:
        """Return `job_id` and `submitted` (epoch seconds) of the run's Slurm job; empty for another run."""
        return read_json(self.slurm_file) or {}

    def write_status(self, state: State, reason: str = "") -> None:
        """Say what the run is doing now; a full disk costs the word and not the run."""
        with contextlib.suppress(OSError):
            write_json(self.status_file, {"state": state, "since": time.time(), "reason": reason})

    def reserve(self, size: int) -> None:
        """Keep `size` bytes of the disk for the verdict: a run whose logs fill it still gets one."""
        with contextlib.suppress(OSError), self._reserve_file.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def write_verdict(self, verdict: dict[str, Any]) -> None:
        """Write the verdict, in the place kept for it."""
        self._reserve_file.unlink(missing_ok=True)
        write_json(self.verdict_file, verdict)

    def forget_secrets(self) -> None:
        """Remove the values of secrets of a run that has ended, or never begins."""
        for path in (self.secrets_file, self.notify_file):
            path.unlink(missing_ok=True)

    def verdict(self) -> dict[str, Any] | None:
        """Return the verdict, or None while there is none."""
        return read_json(self.verdict_file)

    def status(self) -> dict[str, Any]:
        """Return state, since (epoch seconds) and reason, as the run's own files tell them."""
        verdict = self.verdict()
        if verdict is not None:
            known = _state(verdict.get("state"))
            return {"state": known, "since": verdict.get("ended", 0.0), "reason": verdict.get("summary", "")}
        status = {"state": State.CREATED, "since": 0.0, "reason": "", **(read_json(self.status_file) or {})}
        return status | {"state": _state(status["state"])}

    def record(self) -> dict[str, Any]:
        """Return who started the run, when and where, and the supervisor's process."""
        return read_json(self.record_file) or {}

    def note_start(self, pid: int) -> None:
        """Note which process becomes the supervisor: until it says so itself in `record`, it is starting."""
        with contextlib.suppress(OSError):
            write_json(self.starting_file, known_process(pid))

    def supervisor(self) -> dict[str, Any] | None:
        """Return the supervisor, as known_process has it, which may be gone; None before one was started."""
        found: dict[str, Any] | None = self.record().get("supervisor") or read_json(self.starting_file)
        return found

    def add_event(self, event: str, **details: Any) -> None:
        """Append one event; a full disk loses the event and not the run."""
        line = json.dumps({"time": time.time(), "event": event, **details}, ensure_ascii=False) + "\n"
        # One write(2), as threads append too; half a character (a surrogate) has no UTF-8.
        with contextlib.suppress(OSError), self.events_file.open("ab", buffering=0) as file:
            file.write(line.encode("utf-8", "replace"))


class AttemptDir:
    """One attempt's part of a run directory: what was rendered for it and what its hosts left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rendered = path / "rendered"
        self.agent_file = self.rendered / "agent.pyz"
        self.logs = path / "logs"
        self.errors = path / "errors"
        self.dumps = path / "dumps"
        self.clocks_file = path / "clocks.json"
        self.control_file = path / "control.json"
        self.plan_file = path / "plan.json"
        self.hosts_file = path / "hosts.json"
        self.verdict_file = path / "verdict.json"
        self.evidence_file = path / "evidence.json"
        self.launcher_log = path / "launcher.log"

    @property
    def number(self) -> int:
        """Return which attempt it is; 1 is the first."""
        return int(self.path.name.removeprefix("attempt-"))


def _state(word: object) -> State:
    try:
        return State(str(word))
    except ValueError:
        return State.UNKNOWN


def known_process(pid: int) -> dict[str, Any]:
    """Return by what a process of this host is known for ever: pid, started (None: it has ended) and host."""
    found = read_process(pid)
    return {"pid": pid, "started": None if found is None else found.started, "host": socket.gethostname()}


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old one or the whole new one; `mode` holds from the start."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write a value as JSON, all or nothing."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None when there is no such file or it holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
