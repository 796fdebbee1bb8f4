"""A check from a prepared job to a report: one visit to all hosts, a second one to those that need it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.launchers.base import NODE_SCRIPT_FAILED
from orchestrator.preflight import judge_reach, judging
from orchestrator.preflight.building import build_ops, ops_words
from orchestrator.preflight.case import Case
from orchestrator.preflight.fanout import Visit, Visited, bare, visit
from orchestrator.preflight.findings import Host, Report, read_answers
from orchestrator.preflight.program_zip import NAME, program_zip
from orchestrator.preflight.words import told_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.plan import LaunchPlan, PlannedHost
    from orchestrator.prepare import Prepared

_OF_THE_JOB = frozenset({"job", "software"})  # these probes say nothing true under another python
_SECOND_SECONDS = 30.0


@dataclass(frozen=True)
class Wanted:
    """What a check is to look at.

    Attributes:
        checks: names (see preflight.judging.JUDGES).
        seconds: limit of the visit to the hosts.
        from_login: as in preflight.case.Case.
        build_ops: build DeepSpeed's operators that are not ready.
    """

    checks: tuple[str, ...]
    seconds: float
    from_login: bool = False
    build_ops: bool = False


def run_check(prepared: Prepared, wanted: Wanted) -> Report:
    """Visit the hosts and judge what they answer.

    Raises:
        SubmitError: this machine cannot start anything there.
    """
    began = time.monotonic()
    asked = _visit(prepared, wanted)
    hosts = gather(prepared.plan, visit(prepared, asked))
    hosts = _second_look(prepared, asked, _without_answer(asked, hosts))
    if wanted.build_ops:
        hosts = build_ops(prepared, hosts, wanted.seconds)
    if "links" in wanted.checks:
        from orchestrator.preflight.measuring import measure  # noqa: PLC0415 - few checks measure

        hosts = measure(prepared, hosts)
    case = Case(prepared.plan, prepared.job.spec, hosts, wanted.from_login)
    report = judging.judge(case, wanted.checks)
    return replace(report, seconds=time.monotonic() - began)


def _visit(prepared: Prepared, wanted: Wanted) -> Visit:
    plan = prepared.plan
    nvme = nvme_folders(plan)
    probes = judging.probes_for(wanted.checks)
    programs = _programs(prepared, wanted.checks)
    return Visit(
        programs={host.alias: programs for host in plan.hosts} if programs else {},
        files={NAME: program_zip()} if programs else {},
        probes=probes if nvme else tuple(probe for probe in probes if probe != "nvme"),
        folders=_folders(plan),
        nvme=nvme,
        meet=bool(judging.MEETING.intersection(wanted.checks)),
        seconds=wanted.seconds,
    )


def _programs(prepared: Prepared, checks: Sequence[str]) -> list[list[str]]:
    """Return the programs that run on every host beside the probes."""
    plan = prepared.plan
    found = []
    asked = judge_reach.request(prepared.job.spec, plan.train_dir)
    if "reach" in checks and asked["names"]:
        found.append(["python", NAME, "reach", json.dumps(asked)])
    if "ops" in checks and plan.deepspeed is not None:
        found.append(ops_words(plan.deepspeed))
    return found


def _folders(plan: LaunchPlan) -> dict[str, str]:
    """Return the folders that have to have room: what for -> absolute path."""
    found = {"run": str(Path(plan.run_dir).parent), "tmp": "/tmp", "shm": "/dev/shm"}  # noqa: S108 - where ranks put their sockets and shared memory
    if plan.checkpoint_dir is not None and not plan.checkpoint_dir.startswith(plan.run_dir):
        found["checkpoints"] = str(Path(plan.train_dir) / plan.checkpoint_dir)
    return found


def nvme_folders(plan: LaunchPlan) -> tuple[str, ...]:
    """Return the folders that DeepSpeed's configuration offloads to."""
    zero: dict[str, Any] = (plan.deepspeed or {}).get("zero_optimization") or {}
    parts = (zero.get(name) or {} for name in ("offload_optimizer", "offload_param"))
    paths = [part["nvme_path"] for part in parts if part.get("device") == "nvme" and part.get("nvme_path")]
    return tuple(dict.fromkeys(str(path) for path in paths if Path(str(path)).is_absolute()))


def gather(plan: LaunchPlan, visited: Visited) -> tuple[Host, ...]:
    """Put together what is known of every host."""
    return tuple(_host(host, visited) for host in plan.hosts)


def _without_answer(asked: Visit, hosts: Sequence[Host]) -> tuple[Host, ...]:
    """Note the programs that gave no answer on a host that was reached, with what they said last."""
    found = []
    for host in hosts:
        names = [words[2] for words in asked.programs.get(host.plan.alias, [])]
        silent = [name for name in names if name not in host.probes | host.errors and host.reached]
        why = told_by(host.answer.stdout) or "no answer in time"
        found.append(replace(host, errors=host.errors | dict.fromkeys(silent, why)))
    return tuple(found)


def _host(planned: PlannedHost, visited: Visited) -> Host:
    answer = visited.answers[planned.name]
    data, errors, extra = read_answers(answer.stdout)
    host = Host(planned, answer, data, errors, extra, seen=planned.name in visited.seen)
    if visited.meeting is None:
        return host
    state = visited.meeting.hosts[planned.name]
    known = state.ready is not None
    clock = (state.offset, state.uncertainty) if known and visited.meeting.timed(planned.name) else None
    tried = None if state.route is None else state.route["tried"]
    return replace(host, clock=clock, tried=tried, ready=state.ready)


def _second_look(prepared: Prepared, asked: Visit, hosts: Sequence[Host]) -> tuple[Host, ...]:
    """Ask hosts on which node.sh failed again, without what it failed on: all faults at once are told."""
    plan = prepared.plan
    failed = tuple(h.plan for h in hosts if h.answer.exit == NODE_SCRIPT_FAILED and not h.reached)
    if not failed or plan.container is not None:
        return tuple(hosts)
    plain = bare(plan, failed)
    probes = ("sweep", *(probe for probe in asked.probes if probe not in _OF_THE_JOB))
    seconds = min(asked.seconds, _SECOND_SECONDS)
    again = visit(
        replace(prepared, plan=plain),
        replace(asked, probes=probes, sweep=plan.run_dir, programs={}, files={}, meet=False, seconds=seconds),
    )
    second = {host.name: host for host in gather(plain, again)}
    return tuple(_joined(host, second.get(host.name)) for host in hosts)


def _joined(host: Host, second: Host | None) -> Host:
    if second is None:
        return host
    return replace(host, probes=second.probes, errors=second.errors, seen=second.seen)
