"""The corpus of failures: real ones captured here, and texts of public issues; and how well they are told.

    python -m tests.failures          # both percentages, and every case that is told wrong

A captured case is a folder of `tests/data/failures`: what the run left, with `expected.yaml`. The texts of
public issues are in `public.yaml`: what one rank said, whose run is made here around it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.agent.last_words import last_line
from orchestrator.diagnose import Diagnosis, diagnose
from orchestrator.plan import file_name
from orchestrator.rundir import RunDir, write_json
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import Verdict, judge
from orchestrator.verdict.kept import evidence_document, evidence_from
from tests.samples import pool, run_dir

CORPUS = Path(__file__).parents[1] / "data/failures"
_BEGAN = 1_790_000_000.0


@dataclass(frozen=True)
class Case:
    """One failure and what is expected of its diagnosis."""

    name: str
    expected: dict[str, Any]

    @property
    def first(self) -> tuple[str | None, int | None]:
        """Return host and rank of the true first failure; host None where only the rank is known."""
        first = self.expected.get("first") or {}
        return first.get("host"), first.get("rank")

    def make(self, root: Path) -> RunDir:
        """Make the run directory of the case."""
        return _captured(self, root) if self.expected["source"] == "captured" else _public(self, root)


@dataclass(frozen=True)
class Score:
    """How one case was told."""

    case: Case
    told: Diagnosis

    @property
    def category_right(self) -> bool:
        """Tell whether the category is the expected one."""
        return self.told.category == self.case.expected["category"]

    @property
    def named(self) -> bool | None:
        """Tell whether the first failure was named; None where there is none to name."""
        if not any(value is not None for value in self.case.first):
            return None
        return self.told.first is not None

    @property
    def named_wrong(self) -> bool:
        """Tell whether another one was named than the first."""
        host, rank = self.case.first
        first = self.told.first
        return first is not None and (first.rank != rank or (host is not None and first.host != host))


def cases() -> list[Case]:
    """Return all cases by name."""
    folders = sorted(path.parent for path in CORPUS.glob("*/expected.yaml"))
    captured = [Case(f.name, yaml.safe_load((f / "expected.yaml").read_text())) for f in folders]
    return captured + [Case(entry["name"], entry) for entry in _public_entries()]


def _public_entries() -> list[dict[str, Any]]:
    path = CORPUS / "public.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else []


def score(case: Case) -> Score:
    """Return how a case is told."""
    with tempfile.TemporaryDirectory(prefix="orchestrate-case-") as root:
        return Score(case, diagnose(case.make(Path(root))))


def _captured(case: Case, root: Path) -> RunDir:
    kept = CORPUS / case.name
    document = json.loads((kept / "evidence.json").read_text())
    ending, reason, hosts = evidence_from(document)
    run = _run_of(root, hosts)
    attempt = run.attempt(1)
    if (kept / "logs").is_dir():  # git keeps no empty folder: where nothing was said there is none
        shutil.copytree(kept / "logs", attempt.logs, dirs_exist_ok=True)
    if (kept / "dumps").is_dir():  # flight recorders'
        shutil.copytree(kept / "dumps", attempt.dumps, dirs_exist_ok=True)
    for source, target in (("launcher.log", attempt.launcher_log), ("events.jsonl", run.events_file)):
        if (kept / source).exists():
            shutil.copy(kept / source, target)
    verdict = judge(ending, reason, hosts)
    if "told" in case.expected:
        verdict = Verdict(State(case.expected["state"]), case.expected["told"], hosts=hosts)
    _write_verdict(run, verdict)
    return run


def _run_of(root: Path, hosts: tuple[HostEnd, ...], **plan: Any) -> RunDir:
    text = "".join(f"{host.name} slots={max(1, len(host.ranks))}\n" for host in hosts)
    return run_dir(root, "job-case", State.RUNNING, hosts=pool(text), **plan)


def _write_verdict(run: RunDir, verdict: Verdict) -> None:
    document = to_json(verdict, run.run_id, _BEGAN, _BEGAN + 99)
    write_json(run.attempt(1).verdict_file, document)
    run.write_verdict(document)


def _public(case: Case, root: Path) -> RunDir:
    """Make a run of two hosts with two ranks each, of which rank 2 said what the issue shows."""
    said = case.expected
    hosts = _ends(said)
    run = _run_of(root, hosts, **said.get("plan", {}))
    attempt = run.attempt(1)
    for kind, suffix in (("err", ".rank2.err"), ("out", ".rank2.out"), ("host", ".log")):
        if kind in said:
            (attempt.logs / f"{file_name('node-1')}{suffix}").write_text(said[kind])
    if "launcher" in said:
        attempt.launcher_log.write_text(said["launcher"])
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in said.get("events", ())))
    _write_verdict(run, judge(State.FAILED, "a rank ended", hosts))
    write_json(attempt.evidence_file, evidence_document(State.FAILED, "a rank ended", hosts))
    return run


def _ends(said: dict[str, Any]) -> tuple[HostEnd, ...]:
    """Return the ends of the ranks: rank 2 by itself, the others told, half a second later."""
    ended = _BEGAN + 60
    told = {
        "exit_code": None,
        "signal": 15,
        "time": ended + 0.6,
        "term_time": ended + 0.5,
        "uncertainty": 0.01,
    }
    how = {
        "exit_code": None if said.get("signal") else said.get("exit_code", 1),
        "signal": said.get("signal"),
    }
    message = last_line(str(said.get("err", ""))[-8192:])
    first = RankEnd(2, 0, "node-1", time=ended, message=message, uncertainty=0.01, **how)
    others = {rank: RankEnd(rank, rank % 2, f"node-{rank // 2}", **told) for rank in (0, 1, 3)}
    if said.get("host_failure"):
        lost = HostEnd("node-1", (), failure=said["host_failure"], time=ended, since=ended - 1)
        return (HostEnd("node-0", (others[0], others[1]), launcher_code=1, launcher_told=True), lost)
    return (
        HostEnd("node-0", (others[0], others[1]), launcher_code=1, launcher_told=True),
        HostEnd("node-1", (first, others[3]), launcher_code=1, launcher_told=True),
    )


def shares(scores: list[Score]) -> tuple[float, float]:
    """Return the shares of cases with the first failure named, where there is one, and the category right."""
    named = [one.named for one in scores if one.named is not None]
    return sum(named) / len(named), sum(one.category_right for one in scores) / len(scores)
