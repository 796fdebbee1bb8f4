"""Values that many tests start from: a plan, its hosts, a run directory, the program as a process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.hosts import HostPool, parse_hostfile
from orchestrator.plan import LaunchPlan, SshPlan, plan_hosts
from orchestrator.rundir import RunDir, write_json, write_text
from orchestrator.states import State

ODD = 'it\'s "$HOME" `id`; $(rm x) & | > < * ? \\ % %h %% #! ~ ünï©ode 🙂'
ROOT = Path(__file__).parent.parent
TWO_HOSTS = "node1 slots=2\nnode2 slots=2\n"


def pool(text: str = TWO_HOSTS) -> HostPool:
    """Return the hosts of a hostfile's text."""
    return parse_hostfile(text, "hosts")


def plan(hosts: HostPool | None = None, **changes: Any) -> LaunchPlan:
    """Return the plan of a small job on two hosts; keywords replace its fields."""
    backend = changes.get("backend", "local")
    made = LaunchPlan(
        run_id="job-abcd",
        name="job",
        created=1_700_000_000.5,
        run_dir="/shared/runs/job-abcd",
        backend=backend,
        hosts=plan_hosts(hosts or pool(), simulated=backend == "local"),
        ds_filter="",
        launcher="torchrun",
        python="python3",
        script="train.py",
        module=None,
        args=(),
        workdir="/shared/project",
        snapshot=False,
        setup=(),
        env={},
        secrets=(),
        deepspeed=None,
        master_addr=None,
        master_port=None,
        interface=None,
        ssh=SshPlan(),
        shared_disk="auto",
        control_address=None,
        control_port=0,
        time_limit=None,
        grace=10.0,
        lease=30.0,
        start_timeout=120.0,
        templates=None,
        supervisor_python="/opt/orchestrate/bin/python",
        base_dir="/shared/project",
        max_restarts=3,
        checkpoint_dir=None,
        resume="restart",
        resume_args=(),
        resume_tag=None,
        slurm=None,
        container=None,
    )
    return dataclasses.replace(made, **changes)


def run_dir(root: Path, run_id: str = "job-abcd", state: State | None = None, **changes: Any) -> RunDir:
    """Make the directory of a run as submit leaves it; `state` says that a supervisor (us) has taken it."""
    made = RunDir(root / run_id)
    attempt = made.attempt(1)
    for folder in (attempt.rendered, attempt.logs, attempt.errors):
        folder.mkdir(parents=True)
    write_text(made.plan_file, plan(run_id=run_id, run_dir=str(made.path), **changes).to_json())
    record: dict[str, Any] = {"run_id": run_id, "created": time.time()}
    if state is not None:
        record["supervisor"] = supervisor_record(os.getpid())
    write_json(made.record_file, record)
    made.write_status(state or State.CREATED)
    return made


def supervisor_record(pid: int, **changes: Any) -> dict[str, Any]:
    """Return what a supervisor with that pid on this host writes about itself."""
    import socket

    from orchestrator.agent.processes import read_process

    own = read_process(pid)
    return {"pid": pid, "started": own and own.started, "host": socket.gethostname(), **changes}


def orchestrate(*words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; its answer is text."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def click(*words: str) -> Any:
    """Run the command in this process; errors come out as the result's exception."""
    from click.testing import CliRunner

    from orchestrator.cli.main import cli

    return CliRunner().invoke(cli, list(words), standalone_mode=False)
