"""The visit that measures the network between hosts, once it is known how they reach one another."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.preflight import links
from orchestrator.preflight.fanout import Visit, visit
from orchestrator.preflight.findings import Host, read_answers
from orchestrator.preflight.judge_network import own_address
from orchestrator.preflight.program_zip import NAME, program_zip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.plan import LaunchPlan
    from orchestrator.prepare import Prepared


def measure(prepared: Prepared, hosts: Sequence[Host]) -> tuple[Host, ...]:
    """Have the hosts that reach the master measure all-reduces; return all hosts with what they told.

    Raises:
        SubmitError: this machine cannot start anything there.
    """
    ways = {host.name: own_address(host, hosts) for host in hosts}
    there = [host for host in hosts if ways[host.name] is not None]
    if len(there) < 2:
        return tuple(hosts)
    plan = replace(prepared.plan, hosts=tuple(host.plan for host in there))
    visited = visit(replace(prepared, plan=plan), _visit(plan, there, ways))
    lines = {name: read_answers(answer.stdout)[2] for name, answer in visited.answers.items()}
    return tuple(replace(host, extra=[*host.extra, *lines.get(host.name, [])]) for host in hosts)


def _visit(plan: LaunchPlan, there: Sequence[Host], ways: Mapping[str, tuple[str, str] | None]) -> Visit:
    simulated = plan.backend == "local"
    peers = []
    for host in there:
        address, interface = ways[host.name] or ("", "")
        port = links.PORT + (host.plan.index if simulated else 0)
        peers.append(links.Peer(host.name, address, port, plan.interface or interface))
    asked = links.requests(peers, links.Measurement(secrets.token_hex(16)))
    if simulated:  # hosts of one machine, each with its slice of the GPUs
        for host in there:
            asked[host.name]["env"]["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, host.plan.devices))
    # Everybody on a host can read arguments, which may have 128 KiB (execve(2)): the request is a file.
    names = {host.name: f"pairwise-{host.plan.file_name}.json" for host in there}
    files = {names[host.name]: json.dumps(asked[host.name]).encode() for host in there}
    programs = {host.plan.alias: [["python", NAME, "pairwise", names[host.name]]] for host in there}
    seconds = links.longest(len(there))
    return Visit(programs=programs, files={NAME: program_zip(), **files}, seconds=seconds)
