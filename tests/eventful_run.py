"""A run to which everything happened, as its directory would be: queue, attempts, saves, a hang, a failure.

Times are seconds after submit; `STORY` says what a report has to make of them.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

from orchestrator.plan import SlurmPlan
from orchestrator.rundir import RunDir, write_json, write_text
from orchestrator.states import State
from orchestrator.verdict.document import to_json
from orchestrator.verdict.evidence import HostEnd, RankEnd
from orchestrator.verdict.judge import judge
from tests.made_run import BEGAN, OOM
from tests.samples import plan, pool, run_dir

if TYPE_CHECKING:
    from pathlib import Path

_Report = tuple[float, int, int]  # time, attempt, step
_Save = tuple[float, int]  # time, step
JOB = """\
name: eventful
cluster: {backend: slurm, hostfile: hosts}
train:
  script: train.py
  args: [--lr, 3e-4, --data, /data/books]
  env: {WANDB_API_KEY: not-for-everybody, NCCL_DEBUG: WARN}
deepspeed: {stage: 3}
"""
STORY = {
    "queue": 600 + 300,  # before the first attempt, and before the second
    "startup": 100,  # attempt 1: from 600 on, its first step begins at 700
    "checkpoint": 4 * 20,  # the save of every 100th step of attempts 1 and 2 stops the steps for 20 s
    "lost": 55 + 5 + 45 + 5,  # steps 201 to 255 and 401 to 445, and the one after each, which failed
    "hang": 120,  # in attempt 2, after step 350
    "restart": 80,
    "productive": 200 + 200,
    "other": 10 + 10,
}
"""Seconds of each kind: one step takes a second."""


def eventful_run(root: Path, hosts: int = 4, slots: int = 8, run_id: str = "eventful-7k2p") -> RunDir:
    """Return the run's directory in `root`."""
    names = pool("".join(f"node-{i:03} slots={slots}\n" for i in range(hosts)))
    slurm = SlurmPlan(options={}, signal_before=60, requeue=True, srun_args=())
    changes: dict[str, Any] = {
        "backend": "slurm",
        "slurm": slurm,
        "checkpoint_dir": "/shared/ckpt",
        "name": "eventful",
        "created": BEGAN,
        "args": ("--lr", "3e-4"),
        "deepspeed": {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}},
    }
    run = run_dir(root, run_id, State.RUNNING, hosts=names, **changes)
    write_json(run.record_file, _record(run_id))
    run.job_file.write_text(JOB)
    write_json(run.slurm_file, {"job_id": "4711", "submitted": BEGAN})
    first, second = run.attempt(1), run.attempt(2)
    for attempt in (first, second):
        attempt.logs.mkdir(parents=True, exist_ok=True)
        told = {
            host.name: {"versions": {"torch": "2.13.0", "deepspeed": "0.19.8"}} for host in run.plan().hosts
        }
        write_json(attempt.hosts_file, told)
    again = plan(run_id=run_id, run_dir=str(run.path), hosts=None, **changes, resume_tag="global_step200")
    text = json.loads(again.to_json()) | {"hosts": json.loads(run.plan().to_json())["hosts"]}
    write_text(second.plan_file, json.dumps(text))
    _write(run)
    return run


def _record(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id, "created": BEGAN, "user": "ada", "submit_host": "login1", "orchestrate": "0.1.0",
        "job_file": "/home/ada/eventful.yaml", "versions": {"torch": "2.13.0"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "branch": "main", "changed": 2},
    }  # fmt: skip


def _write(run: RunDir) -> None:
    """Write events, metrics and logs; see STORY."""
    steps: list[_Report] = []
    saves: list[_Save] = []
    at = _walk(700.0, 1, range(1, 256), steps, saves)
    broke = at + 5
    began = broke + 10 + 300
    at = _walk(began + 80, 2, range(201, 351), steps, saves)
    hung = at
    at = _walk(at + 120, 2, range(351, 446), steps, saves)
    failed = at + 5
    write_json(
        run.attempt(1).verdict_file,
        {"state": "FAILED", "summary": "node-002 was lost", "ended": BEGAN + broke + 10},
    )
    told = [
        _event(600, "supervisor", pid=1, host="node-000", hosts_key="4711:0"),
        _event(600, "attempt", attempt=1),
        _event(broke, "host_failed", host="node-002", why="no word from it for 30 s"),
        _event(broke, "ending", state="FAILED", reason="node-002: no word from it for 30 s"),
        _event(broke + 10, "requeue", reason="node-002 was lost", without=["node-002"]),
        _event(began, "supervisor", pid=2, host="node-000", hosts_key="4711:1"),
        _event(began, "attempt", attempt=2),
        _event(began + 200, "straggler", host="node-003", what="step_time", value=1.4, typical=1.0, unit="s",
               words="its steps take 1.4 s, those of the others 1.0 s"),
        _event(hung + 90, "hang", ranks=[3], waiting=[0, 1, 2], hosts=["node-000"], silent=90,
               since=BEGAN + hung, where={"3": "loader.py:57 readline"}, dumps=[], how="py-spy"),
        _event(hung + 120, "hang_over"),
        *(_event(time, "checkpoint", tag=f"global_step{step}", step=step, began=BEGAN + time - 20,
                 ended=BEGAN + time) for time, step in saves),
    ]  # fmt: skip
    told += _end(run, BEGAN + failed)
    _lines(run.events_file, sorted(told, key=lambda event: event["time"]))
    numbers = random.Random(7)
    records = [_step(*one, numbers) for one in steps] + list(_samples(run, failed, numbers))
    _lines(run.metrics_file, sorted(records, key=lambda record: record["time"]))
    logs = run.attempt(2).logs
    (logs / "node-000.rank3.err").write_bytes(
        b"\x1b[31mTraceback (most recent call last):\x1b[0m\n  <script>alert(1)</script>\n"
        + OOM.encode()
        + b"\n"
    )
    (logs / "node-000.rank0.out").write_text("".join(f"step {step} loss 2.1\n" for _, _, step in steps[-60:]))


def _walk(at: float, attempt: int, of: range, steps: list[_Report], saves: list[_Save]) -> float:
    """Make steps of a second each, and after every 100th a save of 20 s; return when the last was told."""
    for step in of:
        at += 1
        steps.append((at, attempt, step))
        if step % 100 == 0:
            at += 20
            saves.append((at, step))
    return at


def _event(time: float, name: str, **details: Any) -> dict[str, Any]:
    return {"time": BEGAN + time, "event": name, **details}


def _step(time: float, attempt: int, step: int, numbers: random.Random) -> dict[str, Any]:
    return {
        "time": BEGAN + time, "attempt": attempt, "kind": "step", "host": "node-000", "rank": 0, "step": step,
        "loss": round(2 + 3.5 * math.exp(-step / 90) + numbers.uniform(-0.06, 0.06), 4),
        "learning_rate": 3e-4 * min(step / 50, 1), "grad_norm": round(math.exp(numbers.gauss(0, 0.4)), 3),
        "tokens_per_second": round(262144 * numbers.uniform(0.95, 1.02)), "step_time": 1.0,
    }  # fmt: skip


def _samples(run: RunDir, until: float, numbers: random.Random) -> Any:
    for host in run.plan().hosts:
        for second in range(610, int(until), 10):
            common = {"time": BEGAN + second, "attempt": 1, "host": host.name}
            yield {
                **common, "kind": "host", "cpu": 20 + numbers.random(), "cores": 128, "memory": 300 << 30,
                "memory_total": 2 << 40, "disk_free": 3 << 40, "sent": 2.1e9, "received": 2.1e9,
            }  # fmt: skip
            for gpu in range(len(host.slots)):
                hot = host.index == 3
                yield {
                    **common, "kind": "gpu", "gpu": gpu, "utilization": numbers.uniform(0.9, 1),
                    "memory": int(61.5 * 2**30), "memory_total": 80 << 30, "temperature": 88 if hot else 64,
                    "power": 450 if hot else 670, **({"throttled": "thermal"} if hot else {}),
                }  # fmt: skip


def _end(run: RunDir, failed: float) -> list[dict[str, Any]]:
    ends = tuple(
        HostEnd(
            host.name,
            tuple(_rank(host.name, rank, rank - host.first_rank, failed) for rank in host.ranks),
            launcher_code=1,
            launcher_told=True,
        )
        for host in run.plan().hosts
    )
    verdict = judge(State.FAILED, "a rank ended", ends)
    document = to_json(verdict, run.run_id, BEGAN + 600, failed + 10)
    write_json(run.attempt(2).verdict_file, document)
    write_json(run.verdict_file, document)
    return [
        {"time": failed, "event": "ending", "state": "FAILED", "reason": f"rank 3 on node-000 ended: {OOM}"},
        {"time": failed + 10, "event": "verdict", "state": "FAILED", "summary": verdict.summary},
    ]


def _rank(host: str, rank: int, local_rank: int, failed: float) -> RankEnd:
    common: dict[str, Any] = {"rank": rank, "local_rank": local_rank, "host": host, "uncertainty": 0.001}
    if rank == 3:
        return RankEnd(**common, exit_code=1, signal=None, time=failed, message=OOM)
    return RankEnd(**common, exit_code=None, signal=15, time=failed + 0.2, term_time=failed + 0.1)


def _lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
