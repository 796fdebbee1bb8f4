"""Read what a run left that tells why it ended: verdict, logs, records, events, the last metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.diagnose.events import Event, faults_text, read_events, sampled_faults
from orchestrator.diagnose.metrics import last_record
from orchestrator.diagnose.model import Suspect
from orchestrator.diagnose.text import Line, Text, raised, read_end, text_of
from orchestrator.plan import file_name
from orchestrator.rundir import read_json

if TYPE_CHECKING:
    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.rundir import AttemptDir, RunDir

_AGENTS_OWN = "[orchestrate "  # an agent's own lines in a host's log
_READ_SUSPECTS = 4  # of many candidates: their texts say the same
_SAMPLE_SECONDS = 60.0  # how old a measurement of the host may be
_STEP = re.compile(r"\b(?:global_?)?steps?\s*[:= ]\s*(\d+)", re.IGNORECASE)
_TOLD = ("victim", "stopped")


@dataclass(frozen=True)
class Case:
    """Everything that a diagnosis is made from.

    Attributes:
        document: the verdict, as its file holds it; empty while there is none.
        suspects: the first failure alone, or all candidates.
        texts: for each of the first suspects, its words: its own before its host's.
        common: words of nobody in particular: the launcher's, Slurm's, the supervisor's.
    """

    run: RunDir
    attempt: AttemptDir | None
    state: str
    document: dict[str, Any]
    plan: LaunchPlan | None
    suspects: tuple[Suspect, ...]
    texts: tuple[tuple[Text, ...], ...]
    common: tuple[Text, ...]
    events: tuple[Event, ...]

    @property
    def summary(self) -> str:
        """Return the verdict's own sentence, or what the run says it is doing."""
        return str(self.document.get("summary", ""))

    @property
    def undetermined(self) -> bool:
        """Tell whether several may have failed first."""
        return len(self.suspects) > 1 or bool(self.document.get("undetermined"))

    @property
    def stopped(self) -> int:
        """Return how many ranks were stopped because of the failure."""
        return sum(rank.get("role") in _TOLD for rank in self._ranks)

    @property
    def silent(self) -> list[int]:
        """Return the ranks that had not failed when the others were stopped."""
        return sorted(int(rank["rank"]) for rank in self._ranks if rank.get("role") in _TOLD)

    @cached_property
    def _ranks(self) -> list[dict[str, Any]]:
        return [rank for host in self.document.get("hosts", ()) for rank in host.get("ranks", ())]

    @cached_property
    def last_step(self) -> dict[str, Any]:
        """Return the last `step` record before the failure; empty for none."""
        until = min((s.time for s in self.suspects if s.time is not None), default=None)
        number = None if self.attempt is None else self.attempt.number
        return last_record(self.run.metrics_file, "step", attempt=number, until=until)

    def memory_used(self, suspect: Suspect) -> float | None:
        """Return which share of its host's memory was in use when it ended; None where that is not known."""
        sample = self._host_sample(suspect)
        used, whole = sample.get("memory"), sample.get("memory_total")
        return float(used) / float(whole) if used and whole else None

    def disk_left(self, suspect: Suspect) -> float | None:
        """Return how many bytes were free where its host kept the run's files when it ended, if known."""
        free = self._host_sample(suspect).get("disk_free")
        return None if free is None else float(free)

    def _host_sample(self, suspect: Suspect) -> dict[str, Any]:
        """Return what was measured last on a suspect's host before its end; empty where that is long ago."""
        sample = last_record(self.run.metrics_file, "host", host=suspect.host, until=suspect.time)
        near = suspect.time is None or suspect.time - float(sample.get("time", 0)) < _SAMPLE_SECONDS
        return sample if near else {}

    @property
    def step(self) -> int | None:
        """Return the last step before the failure, from the metrics, else from what the rank printed."""
        told = self.last_step.get("step")
        if isinstance(told, int):
            return told
        outputs = [text for texts in self.texts for text in texts if text.kind == "output"]
        steps = [int(match[1]) for text in outputs for match in _STEP.finditer(text.joined[-20_000:])]
        return steps[-1] if steps else None


def gather(run: RunDir, attempt: int | None = None) -> Case:
    """Read what there is on an attempt, the last one if not told otherwise."""
    attempts = run.attempts()
    shown = run.attempt(attempt) if attempt is not None else attempts[-1] if attempts else None
    document = _document(run, shown, whole_run=attempt is None)
    state = str(document["state"]) if document else str(_current_state(run))
    plan = _plan(run, shown)
    about = read_json(shown.hosts_file) or {} if shown is not None else {}
    suspects = tuple(_suspect(one, plan, about) for one in document.get("candidates") or ())
    if document.get("first_failure") and not document.get("undetermined"):
        suspects = suspects[:1]
    events = read_events(run.events_file, None if shown is None else shown.number)
    texts = tuple(_texts_of(run, shown, one, events) for one in suspects[:_READ_SUSPECTS] if shown)
    return Case(run, shown, state, document, plan, suspects, texts, _common(run, shown, document), events)


def _document(run: RunDir, shown: AttemptDir | None, *, whole_run: bool) -> dict[str, Any]:
    final = run.verdict() if whole_run else None
    own = read_json(shown.verdict_file) if shown is not None else None
    if final is not None and own is not None and not final.get("hosts"):
        return own | {"state": final["state"], "summary": final["summary"]}
    return final or own or {}


def _current_state(run: RunDir) -> object:
    from orchestrator.monitor.status import current_status  # noqa: PLC0415 - it would import us

    return current_status(run)["state"]


def _plan(run: RunDir, shown: AttemptDir | None) -> LaunchPlan | None:
    try:
        return run.plan(shown)
    except (OSError, ValueError):
        return None


def _suspect(cause: dict[str, Any], plan: LaunchPlan | None, about: dict[str, Any]) -> Suspect:
    """Return a cause of the verdict; with its GPU, where its host has told that it has some."""
    known = {name: cause.get(name) for name in ("rank", "local_rank", "exit_code", "signal", "time")}
    gpu, local = None, known["local_rank"]
    for host in plan.hosts if plan is not None else ():
        if host.name == cause["host"] and local is not None:
            gpu = gpu_of(host, local, about)
    said = str(cause.get("message") or "")
    return Suspect(host=cause["host"], gpu=gpu, message=said, log=str(cause.get("log", "")), **known)


def gpu_of(host: PlannedHost, local_rank: int, about: dict[str, Any]) -> int | None:
    """Return the index of a rank's GPU on its host; None for a host that has told that it has none.

    A host that was given some of its GPUs only (CUDA_VISIBLE_DEVICES) has told which, by index or UUID.
    """
    told = about.get(host.name) or {}
    names = told.get("devices") or list(map(str, host.devices))
    name = names[local_rank] if local_rank < len(names) and told.get("gpus") != 0 else ""
    return int(name) if name.isdigit() else None


def _texts_of(
    run: RunDir, attempt: AttemptDir, suspect: Suspect, events: tuple[Event, ...]
) -> tuple[Text, ...]:
    """Return a suspect's words in the order in which they are believed."""
    stem = file_name(suspect.host)
    host_log = read_end("host", attempt.logs / f"{stem}.log", run.path, _AGENTS_OWN)
    faults = faults_text(events, suspect.host, suspect.rank, suspect.time)
    if not faults.lines:
        offset = _offset(attempt, suspect.host)
        path = attempt.logs / f"{stem}.samples"
        faults = sampled_faults(path, run.path, suspect.rank, suspect.time, offset)
    if suspect.rank is None:
        return (text_of("message", suspect.message, "verdict.json"), host_log, faults)
    own = attempt.logs / f"{stem}.rank{suspect.rank}"
    error = read_end("error", own.with_name(f"{own.name}.err"), run.path)
    output = read_end("output", own.with_name(f"{own.name}.out"), run.path)
    chain = raised(error)
    message = _placed(suspect, chain if chain.lines else error, attempt, run)
    return (message, chain, error, output, host_log, faults)


def _placed(suspect: Suspect, said: Text, attempt: AttemptDir, run: RunDir) -> Text:
    """Return a rank's message with the place of its log where it stands, else that of its record."""
    first, *more = suspect.message.splitlines() or [""]
    if not first.strip():
        return Text("message", "", ())
    for line in reversed(said.lines):
        if line.text.strip() == first.strip()[: len(line.text.strip())] and len(line.text.strip()) > 3:
            return Text("message", said.file, (line, *(Line(text) for text in more)))
    record = attempt.errors / f"{file_name(suspect.host)}.rank{suspect.rank}.json"
    name = str(record.relative_to(run.path)) if record.is_file() else ""
    return Text("message", name, (Line(first, 1 if name else None), *(Line(text) for text in more)))


def _offset(attempt: AttemptDir, host: str) -> float:
    clock = (read_json(attempt.clocks_file) or {}).get(host)
    return float(clock["offset"]) if isinstance(clock, dict) and "offset" in clock else 0.0


def _common(run: RunDir, attempt: AttemptDir | None, document: dict[str, Any]) -> tuple[Text, ...]:
    texts = [text_of("summary", str(document.get("summary", "")), "verdict.json")]
    if attempt is not None:
        texts.append(read_end("launcher", attempt.launcher_log, run.path))
    texts += [read_end("launcher", path, run.path) for path in sorted(run.path.glob("slurm-*.out"))[-1:]]
    return tuple(text for text in texts if text.lines)
