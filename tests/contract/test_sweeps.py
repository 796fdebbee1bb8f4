"""Sweeps: one array on Slurm, one point after another elsewhere; each point a run of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.contract.product import Run, Site, wait_until
from tests.testbed import processes

if TYPE_CHECKING:
    from collections.abc import Callable


class Sweep:
    """A sweep seen from outside."""

    def __init__(self, site: Site, said: dict[str, Any]) -> None:
        self.site = site
        self.sweep_id: str = said["sweep_id"]
        self.path = Path(said["sweep_dir"])
        self.job_id: str | None = said["slurm_job_id"]
        self.runs = [self._run(point) for point in said["points"]]

    def _run(self, point: dict[str, str]) -> Run:
        index = point["run_id"].rpartition(".")[2]
        run_dir = str(self.path / point["run_id"])
        run = self.site.run_of({"run_id": point["run_id"], "run_dir": run_dir}, "job")
        run.report_folder = self.site.reports / f"point-{index}"
        return run

    def status(self) -> dict[str, Any]:
        """Return what `orchestrate status --json` says of the sweep."""
        done = self.site.orchestrate("status", self.sweep_id, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def states(self) -> list[str]:
        """Return the states of its points."""
        return [point["state"] for point in self.status()["points"]]

    def wait(self) -> list[str]:
        """Wait until every point has ended; return their states."""
        wait_until(lambda: all(run.verdict() for run in self.runs), self.status)
        return self.states()


def submit(site: Site, matrix: dict[str, list[Any]], *words: str, **changes: Any) -> Sweep:
    """Submit a sweep whose points report into a folder each; simulated hosts are one, with all four ranks."""
    changes.setdefault("train", {"args": [*words]})
    if site.backend == "local":
        changes.setdefault("cluster", {"nodes": 1, "slots": 4})
    job = site.job(matrix=matrix, **changes)
    text = job.read_text().replace(str(site.reports / "job"), str(site.reports / "point-{point}"))
    job.write_text(text)
    done = site.orchestrate("submit", str(job), "--json")
    assert done.returncode == 0, done.stderr
    return Sweep(site, json.loads(done.stdout))


def lifetimes(sweep: Sweep) -> list[tuple[float, float]]:
    """Return when each point's first rank started and its last one ended."""
    found = []
    for run in sweep.runs:
        reports = run.reports()
        ends = [run.note(rank, "exit") for rank in reports]
        found.append((min(facts["time"] for facts in reports.values()), max(filter(None, ends))))
    return sorted(found)


def test_points_run_in_order_with_their_own_values_and_a_failed_one_stops_nothing(local: Site) -> None:
    matrix = {"point": [0, 1, 2], "train.env.LR": ["1e-4"]}
    train = {"args": ["--env", "LR", "--exit-code", "{point}", "--fail-rank", "0"], "env": {"X": "{point}"}}
    sweep = submit(local, matrix, train=train)
    assert sweep.wait() == ["SUCCEEDED", "FAILED", "FAILED"]
    spans = lifetimes(sweep)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    for run in sweep.runs:
        assert {facts["env"]["LR"] for facts in run.reports().values()} == {"1e-4"}
        assert run.status()["run_id"] == run.run_id
        assert "matrix: null" in (run.path / "job.yaml").read_text()  # a run of its own, and no sweep
    told = local.orchestrate("status", sweep.sweep_id)
    assert "point=1,LR=1e-4" in told.stdout
    assert "1 SUCCEEDED, 2 FAILED" in told.stdout
    listed = json.loads(local.orchestrate("list", "--json").stdout)
    assert [entry["run_id"] for entry in listed] == [sweep.sweep_id]
    assert local.orchestrate("logs", f"{sweep.sweep_id}.1").returncode == 0


def test_so_many_points_run_at_a_time_as_the_job_file_allows(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1, 2, 3]}, "--until", str(local.gate), parallel=2)
    for run in sweep.runs[:2]:
        run.wait_for_ranks()
    local.gate.touch()
    assert sweep.wait() == ["SUCCEEDED"] * 4
    spans = lifetimes(sweep)
    most = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert most == 2


def test_cancel_ends_what_runs_and_what_waits(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1, 2]}, "--sleep", "300")
    sweep.runs[0].wait_for_ranks()
    done = local.orchestrate("cancel", sweep.sweep_id)
    assert done.returncode == 0, done.stdout
    assert sweep.states() == ["CANCELLED"] * 3
    assert "before its turn" in sweep.runs[2].verdict()["summary"]
    assert sweep.runs[1].reports() == {}
    for run in sweep.runs:
        run.see_nothing_left()
    wait_until(lambda: not processes.find(str(sweep.path)), lambda: processes.find(str(sweep.path)))


def test_one_point_may_be_cancelled_alone(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1, 2]}, "--sleep", "300")
    sweep.runs[0].wait_for_ranks()
    done = local.orchestrate("cancel", f"{sweep.sweep_id}.1")  # its turn never comes
    assert done.returncode == 0, done.stdout
    assert sweep.states() == ["RUNNING", "CANCELLED", "PENDING"]
    done = local.orchestrate("cancel", f"{sweep.sweep_id}.0")
    assert done.returncode == 0, done.stdout
    sweep.runs[2].wait_for_ranks()
    assert sweep.runs[1].reports() == {}
    assert local.orchestrate("cancel", sweep.sweep_id).returncode == 0
    assert sweep.wait() == ["CANCELLED"] * 3


def test_a_killed_driver_is_replaced_and_starts_nothing_twice(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1]}, "--until", str(local.gate))
    sweep.runs[0].wait_for_ranks()
    (driver,) = [p for p in processes.find(str(sweep.path)) if "orchestrator.sweep" in p.argv]
    os.kill(driver.pid, signal.SIGKILL)
    local.gate.touch()
    wait_until(lambda: sweep.states()[0] == "SUCCEEDED", sweep.status)
    assert sweep.status()["state"] == "LOST"
    assert "nobody starts what waits" in sweep.status()["reason"]
    again = local.orchestrate("supervise", str(sweep.path))
    assert again.returncode == 0, again.stderr
    assert sweep.states() == ["SUCCEEDED", "SUCCEEDED"]
    assert [len(run.events("supervisor")) for run in sweep.runs] == [1, 1]


def test_what_was_cut_off_with_the_driver_is_taken_up_again(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1, 2]}, "--until", str(local.gate), parallel=2, lease=120)
    for run in sweep.runs[:2]:
        run.wait_for_ranks()
    mains = [
        p
        for p in processes.find(str(sweep.path))
        if {"orchestrator.sweep", "orchestrator.supervisor"} & set(p.argv)
    ]
    assert len(mains) == 3
    # The driver first: it would start the third point when it sees the end of another one.
    for process in sorted(mains, key=lambda process: "orchestrator.sweep" not in process.argv):
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: sweep.states() == ["LOST", "LOST", "PENDING"], sweep.status)
    with ThreadPoolExecutor() as pool:
        supervising = pool.submit(local.orchestrate, "supervise", str(sweep.path))
        for run in sweep.runs[:2]:
            wait_until(lambda run=run: len(run.events("supervisor")) == 2, run.story)
        local.gate.touch()
        again = supervising.result()
    assert again.returncode == 0, again.stderr
    assert sweep.states() == ["SUCCEEDED"] * 3
    assert [len(run.events("supervisor")) for run in sweep.runs] == [2, 2, 1]
    assert not any((run.path / "attempt-2").exists() for run in sweep.runs)  # the ranks themselves went on
    spans = lifetimes(sweep)
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == 2


def test_two_do_not_run_one_sweep(local: Site) -> None:
    sweep = submit(local, {"point": [0, 1]}, "--sleep", "300")
    again = local.orchestrate("supervise", str(sweep.path))
    assert again.returncode == 3
    assert "is being run already" in again.stderr
    assert local.orchestrate("cancel", sweep.sweep_id).returncode == 0


def test_a_sweep_is_followed_to_its_end_and_fails_with_a_point(local: Site) -> None:
    train = {"args": ["--exit-code", "{point}", "--fail-rank", "0"]}
    job = local.job(matrix={"point": [0, 1]}, parallel=2, train=train)
    done = local.orchestrate("submit", "--follow", str(job))
    assert done.returncode == 1
    assert "1 SUCCEEDED, 1 FAILED" in done.stdout.splitlines()[-1]
    assert "FAILED  point=1" in done.stdout
    assert "LOST" not in done.stdout


def test_a_sweep_that_was_only_written_is_started_by_the_command_that_submit_tells(local: Site) -> None:
    job = local.job(matrix={"point": [0, 1]}, train={"args": ["--env", "{point}"]}, parallel=2)
    said = json.loads(local.orchestrate("submit", "--no-start", "--json", str(job)).stdout)
    sweep = Sweep(local, said | {"slurm_job_id": None})
    assert sweep.states() == ["PENDING", "PENDING"]
    _, environ = local.command()
    done = subprocess.run(
        said["command"], env=environ, cwd=local.folder, capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert sweep.states() == ["SUCCEEDED", "SUCCEEDED"]


def test_points_share_the_hosts_when_they_run_at_a_time(remote: Site) -> None:
    sweep = submit(remote, {"point": [0, 1]}, "--until", str(remote.gate), parallel=2)
    for run in sweep.runs:
        run.wait_for_ranks()
    remote.gate.touch()
    assert sweep.wait() == ["SUCCEEDED", "SUCCEEDED"]


def test_slurm_gets_one_array(slurm: Site) -> None:
    sweep = submit(slurm, {"point": [0, 1, 2]}, "--sleep", "2", cluster={"nodes": 1}, parallel=2)
    told = slurm.bed.slurm.run("scontrol", "show", "job", str(sweep.job_id)).stdout
    assert f"ArrayJobId={sweep.job_id}" in told
    assert "ArrayTaskThrottle=2" in told
    assert f"Command={sweep.path}/slurm.sbatch" in told
    assert "#SBATCH --array=0-2%2\n" in (sweep.path / "slurm.sbatch").read_text()
    assert sweep.wait() == ["SUCCEEDED"] * 3
    assert [run.slurm_job() for run in sweep.runs] == [f"{sweep.job_id}_{index}" for index in range(3)]
    spans = lifetimes(sweep)
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) <= 2


def test_the_array_of_a_job_file_has_its_own_indexes(slurm: Site) -> None:
    job = slurm.job(
        cluster={"nodes": 1, "slurm": {"array": "3,7%1"}},
        train={"args": ["--env", "SLURM_ARRAY_TASK_ID"], "env": {"SEED": "s{array_index}"}},
    )
    done = slurm.orchestrate("submit", str(job), "--json")
    sweep = Sweep(slurm, json.loads(done.stdout))
    assert [run.run_id for run in sweep.runs] == [f"{sweep.sweep_id}.3", f"{sweep.sweep_id}.7"]
    assert sweep.wait() == ["SUCCEEDED", "SUCCEEDED"]
    assert "export SEED=s7" in (sweep.runs[1].path / "attempt-1/rendered/node.sh").read_text()


def test_cancel_ends_the_whole_array(slurm: Site) -> None:
    sweep = submit(slurm, {"point": [0, 1, 2, 3]}, "--sleep", "300")
    sweep.runs[0].wait_for_ranks()
    done = slurm.orchestrate("cancel", sweep.sweep_id)
    assert done.returncode == 0, done.stdout
    assert sweep.states() == ["CANCELLED"] * 4
    left: Callable[[], str] = lambda: slurm.bed.slurm.run("squeue", "--noheader").stdout  # noqa: E731
    wait_until(lambda: not left(), left)


def test_points_in_an_allocation_take_turns_on_its_hosts(slurm: Site) -> None:
    job = slurm.job(cluster={"slots": 1}, matrix={"point": [0, 1]}, train={"args": ["--env", "{point}"]})
    argv, environ = slurm.command("submit", "--in-allocation", "--follow", str(job))
    line = slurm.bed.slurm.command("salloc", "--quiet", "--nodes=2", "--gres=gpu:2", *argv)
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(line, env=environ, cwd=slurm.folder, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 runs, at most 1 at a time" in done.stdout
    assert done.stdout.splitlines()[-1] == "SUCCEEDED  2 SUCCEEDED"
    first, second = sorted((slurm.folder / "runs").glob("*/*.[01]"))
    ended = json.loads((first / "verdict.json").read_text())["ended"]
    assert ended < json.loads((second / "record.json").read_text())["started"]


def test_points_of_one_array_cannot_ask_for_different_hosts(slurm: Site) -> None:
    job = slurm.job(matrix={"cluster.nodes": [1, 2]})
    done = slurm.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "matrix.cluster.nodes: changes what Slurm is asked for" in done.stderr
    assert f"{job}:" in done.stderr


def test_every_wrong_point_is_told_before_anything_starts(local: Site) -> None:
    job = local.job(matrix={"deepspeed.zero_stage": [2, 7], "gone": [1]})
    done = local.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "is used in no argument" in done.stderr
    job = local.job(matrix={"deepspeed.zero_stage": [2, 7], "deepspeed.micro_batch_per_gpu": [1]})
    done = local.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "zero_stage" in done.stderr
    assert "(in point 1: micro_batch_per_gpu=1,zero_stage=7)" in done.stderr
    assert not (local.folder / "runs").exists()
