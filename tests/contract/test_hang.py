"""Ranks that hang are named with the line they stand on, and hosts that are slow; ranks at work are not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.monitor.records import Records
from tests.contract.product import wait_until

if TYPE_CHECKING:
    from tests.contract.product import Run, Site

HANGING = Path(__file__).with_name("hanging_script.py")
LINE = next(
    number for number, line in enumerate(HANGING.read_text().splitlines(), 1) if "the test looks for" in line
)
MONITOR = {"sample_interval": 0.5, "hang": {"after": 3, "stop_after": 2}}

pytestmark = [pytest.mark.train, pytest.mark.xdist_group("train")]


def test_the_rank_that_hangs_is_named_with_its_line_and_ends_the_run(local: Site) -> None:
    run = local.submit(
        cluster={"slots": 1}, monitor=MONITOR, train={"script": str(HANGING), "args": ["--stuck", "1"]}
    )
    hang = wait_until(lambda: run.events("hang"), run.story)[0]
    assert (hang["ranks"], hang["waiting"], hang["hosts"]) == ([1], [0], ["host-1"]), hang
    assert hang["where"]["1"] == f"hanging_script.py:{LINE} next_batch"
    assert hang["silent"] >= 3
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    told = run.events("ending")[0]["reason"]
    assert told.startswith(f"rank 1 on host-1 hangs at hanging_script.py:{LINE} next_batch")
    stack = (run.path / "attempt-1/dumps/host-1.rank1.txt").read_text()
    assert "next_batch" in stack
    metrics = Records(run.path / "metrics.jsonl").new()  # the collector may be writing its last lines
    steps = [record["step"] for record in metrics if record["kind"] == "step"]
    assert steps == [1, 2, 3]
    run.see_nothing_left()


def test_a_rank_at_work_is_no_hang_but_a_stall_when_it_takes_much_longer_than_usual(local: Site) -> None:
    """All use a core, as ranks do that wait for NCCL: the flight recorders tell who waits for whom."""
    until, end = local.folder / "go-on", local.folder / "end"
    words = ["--busy", "0", "--busy-until", str(until), "--spin", "--until", str(end)]
    monitor = {"sample_interval": 0.5, "hang": {"after": 2, "stop_after": 0}}
    run = local.submit(cluster={"slots": 1}, monitor=monitor, train={"script": str(HANGING), "args": words})
    stall = wait_until(lambda: stalls_in_a_collective(run), run.story)[0]
    assert (stall["ranks"], stall["waiting"], stall["hosts"]) == ([0], [1], ["host-0"]), stall
    assert stall["words"].startswith("no step for ")
    assert "rank 0 did not join all_reduce #4 (hanging_script.py:" in stall["words"]
    wait_until(lambda: run.status()["reason"] == stall["words"], run.story)
    until.touch()
    wait_until(lambda: len(run.events("stall_over")) == len(run.events("stall")), run.story)
    end.touch()
    run.succeed()
    assert len(stalls_in_a_collective(run)) == 1
    assert hangs_after_the_first_step(run) == []


def stalls_in_a_collective(run: Run) -> list[dict]:
    """Return the stalls of which flight recorders tell; ranks that take very long to start are one, too."""
    return [stall for stall in run.events("stall") if stall["flight"]]


def hangs_after_the_first_step(run: Run) -> list[dict]:
    """Return the hangs but those of ranks that start: a busy machine may give them no CPU for seconds."""
    first = run.events("first_step")[0]
    return [hang for hang in run.events("hang") if hang["since"] > first["time"]]


def test_the_host_that_the_others_wait_for_at_every_step_is_named(local: Site) -> None:
    run = local.submit(
        cluster={"nodes": 3, "slots": 1},
        monitor=MONITOR,
        train={"script": str(HANGING), "args": ["--slow", "1", "--steps", "1000"]},
    )
    [straggler, *_] = wait_until(lambda: run.events("straggler"), run.story)
    assert (straggler["host"], straggler["what"]) == ("host-1", "wait"), straggler
    assert straggler["value"] > straggler["typical"]
    assert hangs_after_the_first_step(run) == []
    local.orchestrate("cancel", run.run_id)
    assert run.wait()["state"] == "CANCELLED"
