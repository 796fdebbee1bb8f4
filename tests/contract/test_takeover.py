"""A supervisor that was killed can be replaced within the lease: the ranks go on, or are ended at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from tests.contract.product import PATIENCE, wait_until

if TYPE_CHECKING:
    from tests.contract.product import Run, Site


LEASE = 120  # seconds: on a busy machine it takes some to see that a supervisor is gone and to start another


def kill_supervisor(run: Run) -> None:
    """SIGKILL the run's supervisor and see that the product notices."""
    os.kill(run.events("supervisor")[0]["pid"], signal.SIGKILL)
    wait_until(lambda: run.status()["state"] == "LOST", run.story)


def test_a_new_supervisor_takes_a_run_over_to_its_end(detached: Site) -> None:
    words = ["--lines", "60", "--line-delay", "0.1", "--tail", "the end", "--until", str(detached.gate)]
    run = detached.submit(lease=LEASE, train={"args": words})
    before = run.wait_for_ranks()
    kill_supervisor(run)
    assert "supervise" in run.status()["reason"]
    port = json.loads((run.path / "attempt-1/control.json").read_text())["port"]
    argv, environ = detached.command("supervise", str(run.path))
    stranger = socket.create_server(("", port))  # as whoever asked for any free port meanwhile
    second = subprocess.Popen(argv, env=environ, cwd=detached.folder)
    try:
        with stranger:
            wait_until(lambda: len(run.events("supervisor")) == 2, run.story)
            time.sleep(0.5)  # for it to have tried
        wait_until(lambda: run.status()["state"] == "RUNNING", run.story)
        detached.gate.touch()
        assert second.wait(PATIENCE) == 0, run.story()
    finally:
        second.kill()
        second.wait()
    run.succeed()
    assert {rank: report["pid"] for rank, report in run.reports().items()} == {
        rank: report["pid"] for rank, report in before.items()
    }
    for rank in range(4):
        assert run.log(f"{detached.hosts[rank // 2]}.rank{rank}.out").endswith("the end")
    run.see_nothing_left()


def test_cancel_ends_a_run_whose_supervisor_was_killed(detached: Site) -> None:
    run = detached.submit(lease=LEASE, train={"args": ["--sleep", "300"]})
    run.wait_for_ranks()
    kill_supervisor(run)
    done = detached.orchestrate("cancel", run.run_id)
    assert done.returncode == 0, done.stderr + run.story()
    assert run.wait()["state"] == "CANCELLED"
    assert set(run.roles().values()) == {"stopped"}
    run.see_nothing_left()
