"""DeepSpeed's compiled operators: asking after them, and building them once for each folder they go to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.preflight import judge_ops
from orchestrator.preflight.fanout import Visit, visit
from orchestrator.preflight.findings import Host, read_answers
from orchestrator.preflight.program_zip import NAME, program_zip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.prepare import Prepared

_SECONDS = 1200.0  # for all builds of one host, each of which takes a minute or two
_TELL_SECONDS = 60.0  # of these, for the host to start, and to tell what did not end


def ops_words(config: Mapping[str, Any] | None, build: Sequence[str] = ()) -> list[str]:
    """Return the program that tells of a host's operators, after building some of them."""
    return ["python", NAME, "ops", json.dumps(judge_ops.request(config, build, _SECONDS - _TELL_SECONDS))]


def build_ops(prepared: Prepared, hosts: Sequence[Host], seconds: float) -> tuple[Host, ...]:
    """Build what is not ready, on one host of those that share a folder; return all hosts as they are then.

    Args:
        prepared: the job.
        hosts: what has been found so far.
        seconds: limit of asking again.

    Raises:
        SubmitError: this machine cannot start anything there.
    """
    wanted = judge_ops.to_build({h.name: h.probes["ops"] for h in hosts if "ops" in h.probes})
    if not wanted:
        return tuple(hosts)
    config = prepared.plan.deepspeed
    builders = [host for host in hosts if host.name in wanted]
    words = {name: ops_words(config, ops) for name, ops in wanted.items()}
    told, silent = _ask(prepared, builders, words, _SECONDS)
    others = [host for host in hosts if "ops" in host.probes and host.name not in told]
    told |= _ask(prepared, others, {host.name: ops_words(config) for host in others}, seconds)[0]
    asked = [replace(h, probes=h.probes | told.get(h.name, {})) for h in hosts]
    return tuple(_with_silence(host, wanted, silent) for host in asked)


def _with_silence(host: Host, wanted: Mapping[str, list[str]], silent: Mapping[str, str]) -> Host:
    if host.name not in silent:
        return host
    data = judge_ops.not_built(host.probes["ops"], wanted[host.name], silent[host.name])
    return replace(host, probes=host.probes | {"ops": data})


def _ask(
    prepared: Prepared, hosts: Sequence[Host], words: Mapping[str, list[str]], seconds: float
) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str]]:
    """Run a program on some hosts.

    Returns:
        The data of those that gave some, by host and probe; and the others' words on why not, by host.
    """
    if not hosts:
        return {}, {}
    plan = replace(prepared.plan, hosts=tuple(host.plan for host in hosts))
    programs = {host.plan.alias: [words[host.name]] for host in hosts}
    asked = Visit(programs=programs, files={NAME: program_zip()}, seconds=seconds)
    answers = visit(replace(prepared, plan=plan), asked).answers
    told = {name: read_answers(answer.stdout)[0] for name, answer in answers.items()}
    silent = {name: answers[name].words or "it gave no answer" for name, data in told.items() if not data}
    return {name: data for name, data in told.items() if data}, silent
