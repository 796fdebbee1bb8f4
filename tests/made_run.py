"""A run of any size as its directory would be, made without running it: for screens, reports and benchmarks.

The numbers follow a seed; the loss falls, one host may be slow, one rank may fail.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

from orchestrator.rundir import RunDir, write_json
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import judge
from tests.samples import pool, run_dir

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.plan import LaunchPlan, PlannedHost

BEGAN = 1_790_000_000.0  # epoch seconds
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 1 has a total of 79.10 GiB"
_TOKENS = 8192


def made_run(
    root: Path,
    *,
    hosts: int = 4,
    slots: int = 2,
    steps: int = 60,
    failing: int | None = None,
    slow: int | None = None,
    over: bool = True,
    run_id: str = "job-made",
    logs: bool = True,
) -> RunDir:
    """Return a run directory in `root`: one step a second from BEGAN + 30 s on, samples every 10 s.

    Args:
        failing: a rank that fails after the last step; with `over` False it has not yet.
        logs: whether to write what hosts and ranks say: with a thousand hosts the half of the work.
        slow: index of a host whose ranks are last at every step.
    """
    names = "".join(f"node-{i} slots={slots}\n" for i in range(hosts))
    run = run_dir(root, run_id, State.RUNNING, hosts=pool(names))
    launch = run.plan()
    attempt = run.attempt(1)
    for folder in (attempt.logs, attempt.errors, attempt.rendered, attempt.dumps):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(
        attempt.clocks_file, {host.name: {"offset": 0.0, "uncertainty": 0.001} for host in launch.hosts}
    )
    told = _events(launch)
    numbers = random.Random(hosts * 1000 + steps)
    metrics = [_step(launch.hosts[0], step, numbers) for step in range(1, steps + 1)]
    metrics += [one for host in launch.hosts for one in _samples(host, steps, host.index == slow, numbers)]
    metrics.sort(key=lambda record: record["time"])
    _write_lines(run.metrics_file, metrics)
    for host in launch.hosts if logs else ():
        _write_logs(attempt.logs, host, steps, failing)
    if over:
        told += _end(run, launch, BEGAN + 30 + steps, failing)
    _write_lines(run.events_file, told)
    return run


def _events(launch: LaunchPlan) -> list[dict[str, Any]]:
    told = [{"time": BEGAN, "event": "supervisor", "pid": 1, "host": "login", "hosts_key": ""}]
    told.append({"time": BEGAN + 1, "event": "attempt", "attempt": 1})
    for host in launch.hosts:
        told.append({"time": BEGAN + 2, "event": "host_ready", "host": host.name})
        told.append(
            {"time": BEGAN + 3, "event": "launcher_started", "host": host.name, "host_time": BEGAN + 3}
        )
        told += [
            {"time": BEGAN + 5, "event": "rank_start", "host": host.name, "rank": rank, "pid": 1000 + rank,
             "host_time": BEGAN + 5}
            for rank in host.ranks
        ]  # fmt: skip
    return told


def _loss(step: int) -> float:
    return 2 + 3.5 * math.exp(-step / 20)


def _step(host: PlannedHost, step: int, numbers: random.Random) -> dict[str, Any]:
    loss = _loss(step) + numbers.uniform(-0.03, 0.03)
    return {
        "time": BEGAN + 30 + step,
        "attempt": 1,
        "kind": "step",
        "host": host.name,
        "rank": 0,
        "step": step,
        "loss": round(loss, 4),
        "learning_rate": 3e-4,
        "grad_norm": round(1.0 + numbers.random(), 3),
        "tokens_per_second": round(_TOKENS * numbers.uniform(0.97, 1.03)),
        "step_time": round(numbers.uniform(0.97, 1.03), 3),
    }


def _samples(host: PlannedHost, steps: int, slow: bool, numbers: random.Random) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for second in range(10, 30 + steps, 10):
        base = {"time": BEGAN + second, "attempt": 1, "host": host.name}
        cpu = round(len(host.slots) * numbers.uniform(0.9, 1.1), 2)
        found.append(
            {**base, "kind": "host", "cpu": cpu, "cores": 64, "load": cpu, "memory": 200 << 30,
             "memory_total": 1 << 40, "disk_free": 3 << 40, "sent": 2.1e9, "received": 2.1e9, "read": 1e6,
             "written": 1e5}
        )  # fmt: skip
        for place, rank in enumerate(host.ranks):
            found.append(
                {**base, "kind": "rank", "rank": rank, "cpu": 1.0, "memory": 9 << 30, "log_bytes": 4096}
            )
            power = 450 if slow else round(numbers.uniform(660, 690))
            gpu = {**base, "kind": "gpu", "gpu": host.devices[place], "utilization": 0.98, "memory": 61 << 30,
                   "memory_total": 80 << 30, "temperature": 88 if slow else 64, "power": power,
                   "clock": 1200 if slow else 1980, "ecc_errors": 0}  # fmt: skip
            found.append(gpu | ({"throttled": "thermal"} if slow else {}))
    return found


def _write_logs(logs: Path, host: PlannedHost, steps: int, failing: int | None) -> None:
    times: list[str] = []
    (logs / f"{host.file_name}.log").write_text("[orchestrate 12:00:00] agent 999 on host\n")
    times.append(f"{BEGAN + 2:.3f} log 41\n")
    for rank in host.ranks:
        size, lines = 0, []
        for step in range(1, steps + 1):
            line = f"step {step}/{steps} loss {_loss(step):.3f} tokens/s {_TOKENS} step_time 1.00s\n"
            lines.append(line)
            size += len(line)
            times.append(f"{BEGAN + 30 + step:.3f} {rank}.out {size}\n")
        (logs / f"{host.file_name}.rank{rank}.out").write_text("".join(lines))
        said = f'Traceback (most recent call last):\n  File "train.py", line 10, in main\n{OOM}\n'
        said = said if rank == failing else ""
        (logs / f"{host.file_name}.rank{rank}.err").write_text(said)
        if said:
            times.append(f"{BEGAN + 30 + steps:.3f} {rank}.err {len(said)}\n")
    (logs / f"{host.file_name}.times").write_text("".join(sorted(times)))


def _end(run: RunDir, launch: LaunchPlan, ended: float, failing: int | None) -> list[dict[str, Any]]:
    ends = tuple(
        HostEnd(host.name, tuple(_rank_end(host, rank, ended, failing) for rank in host.ranks),
                launcher_code=0 if failing is None else 1, launcher_told=failing is not None)
        for host in launch.hosts
    )  # fmt: skip
    verdict = judge(State.SUCCEEDED if failing is None else State.FAILED, "a rank ended", ends)
    document = to_json(verdict, launch.run_id, BEGAN, ended + 2)
    write_json(run.attempt(1).verdict_file, document)
    write_json(run.verdict_file, document)
    told = [
        {"time": ended, "event": "rank_exit", "host": host.name, "rank": rank, "pid": 1000 + rank,
         "exit_code": 1 if rank == failing else 0, "signal": None, "message": OOM if rank == failing else "",
         "host_time": ended}
        for host in launch.hosts
        for rank in host.ranks
    ]  # fmt: skip
    return [
        *told,
        {"time": ended + 2, "event": "verdict", "state": verdict.state, "summary": verdict.summary},
    ]


def _rank_end(host: PlannedHost, rank: int, ended: float, failing: int | None) -> RankEnd:
    common = {"rank": rank, "local_rank": rank - host.first_rank, "host": host.name, "uncertainty": 0.001}
    if failing is None:
        return RankEnd(**common, exit_code=0, signal=None, time=ended)
    if rank == failing:
        return RankEnd(**common, exit_code=1, signal=None, time=ended, message=OOM)
    return RankEnd(**common, exit_code=None, signal=15, time=ended + 0.2, term_time=ended + 0.1)


def _write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
