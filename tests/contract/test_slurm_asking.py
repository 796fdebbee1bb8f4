"""What Slurm is asked for, and what it gives: options, filters, refusals, allocations."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import Site, wait_until
from tests.testbed.accounts import ORDINARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.product import Run
    from tests.testbed import Testbed


def shown(site: Site, job_id: str) -> dict[str, str]:
    """Return what scontrol shows of a job, by key."""
    text = site.bed.slurm.run("scontrol", "--oneliner", "show", "job", job_id).stdout
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def hosts_of(run: Run) -> dict[str, list[str]]:
    """Return the devices of every host in a run's hostfile order."""
    reports = run.reports()
    found: dict[str, list[str]] = {}
    for rank in sorted(reports):
        found.setdefault(reports[rank]["host"], []).append(reports[rank]["env"]["CUDA_VISIBLE_DEVICES"])
    return found


# -- options and filters


def test_slurm_gets_what_the_job_file_asks_for(slurm: Site) -> None:
    asked = {"gpus_per_node": "fake:2", "cpus_per_task": 3, "mem": "500M", "comment": 'it\'s "so" #1'}
    run = slurm.submit(name="a b", cluster={"slurm": asked | {"time": "0:20:00", "extra": {"hold": ""}}})
    found = shown(slurm, run.slurm_job())
    assert (found["NumNodes"], found["NumCPUs"], found["NumTasks"]) in {("2-2", "6", "2"), ("2", "6", "2")}
    assert found["CPUs/Task"] == "3"
    assert found["TimeLimit"] == "00:20:00"
    assert found["Requeue"] == "1"
    assert "gres:gpu:fake:2" in found["TresPerNode"]
    assert found["Command"] == f"{run.path}/slurm.sbatch"
    whole = slurm.bed.slurm.run("scontrol", "show", "job", run.slurm_job()).stdout
    assert "JobName=a b\n" in whole
    assert 'Comment=it\'s "so" #1' in whole
    wait_until(lambda: _waits(run, "held"), run.story)
    slurm.bed.slurm.run("scontrol", "release", run.slurm_job())
    run.succeed()
    srun = (run.path / "attempt-1/rendered/srun.sh").read_text()
    assert "--cpus-per-task=" in srun


def test_every_cpu_of_the_job_reaches_the_ranks(slurm: Site) -> None:
    told = {"args": ["--env", "SLURM_CPUS_PER_TASK"]}
    run = slurm.submit(cluster={"slurm": {"cpus_per_task": 4}}, train=told)
    run.succeed()
    assert {facts["env"]["SLURM_CPUS_PER_TASK"] for facts in run.reports().values()} == {"4"}


def test_whole_hosts_are_excluded_by_slurm_and_slots_inside_the_allocation(slurm: Site) -> None:
    run = slurm.submit(cluster={"nodes": 1, "slots": 2, "exclude": "node1@node2:0"})
    run.wait()
    assert hosts_of(run) == {"node2": ["1"]}
    assert shown(slurm, run.slurm_job())["ExcNodeList"] == "node1"
    hostfile = (run.path / "attempt-1/rendered/hostfile").read_text()
    assert hostfile == "node2 slots=2\n"


def test_a_slot_filter_on_a_host_that_the_job_did_not_get_is_no_failure(slurm: Site) -> None:
    run = slurm.submit(cluster={"nodes": 1, "slurm": {"nodelist": "node1"}, "exclude": "node2:0"})
    run.wait()
    assert hosts_of(run) == {"node1": ["0,1", "0,1"]}


def test_include_says_exactly_which_hosts_or_is_an_error(slurm: Site) -> None:
    run = slurm.submit(cluster={"nodes": None, "include": "node2:1"})
    run.wait()
    assert hosts_of(run) == {"node2": ["1"]}
    assert shown(slurm, run.slurm_job())["ReqNodeList"] == "node2"
    job = slurm.job("two", cluster={"nodes": 1, "include": "node1@node2"})
    done = slurm.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "contains all of these" in done.stderr
    assert "cluster.include" in done.stderr


# -- refusals


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"slurm": {"partition": "gone"}}, "sinfo"),
        ({"slurm": {"gpus_per_node": "h100:2"}}, ""),
    ],
    ids=["partition", "gpus"],
)
def test_what_sbatch_refuses_is_told_at_once(slurm: Site, changes: dict[str, Any], told: str) -> None:
    done = slurm.orchestrate("submit", str(slurm.job(cluster=changes)))
    assert done.returncode == 3
    assert "sbatch refused the job: " in done.stderr
    assert told in done.stderr
    (verdict,) = (slurm.folder / "runs").glob("*/verdict.json")
    assert json.loads(verdict.read_text())["state"] == "FAILED"
    assert slurm.bed.slurm.run("squeue", "--noheader").stdout == ""


def test_a_job_that_can_never_start_says_so_while_it_waits(slurm: Site) -> None:
    run = slurm.submit(cluster={"nodes": 3})
    status = wait_until(lambda: _waits(run, "more nodes than its partition"), run.story)
    assert status["state"] == "PENDING"
    assert slurm.orchestrate("cancel", run.run_id).returncode == 0


def _waits(run: Run, words: str) -> dict[str, Any] | None:
    status = run.status()
    return status if status["state"] == "PENDING" and words in status["reason"] else None


@pytest.fixture
def accounted(accounting_bed: Testbed, tmp_path: Path) -> Iterator[Site]:
    """Two hosts of a Slurm cluster that keeps accounts."""
    site = Site("slurm", tmp_path, accounting_bed)
    yield site
    site.clear()


def test_a_bad_account_is_refused_and_a_good_one_charged(accounted: Site) -> None:
    refused = accounted.orchestrate("submit", str(accounted.job(cluster={"slurm": {"account": "nobody"}})))
    assert refused.returncode == 3
    assert "cluster.slurm.account" in refused.stderr
    many = accounted.orchestrate("submit", str(accounted.job("many", cluster={"nodes": 3})))
    assert many.returncode == 3
    assert "fewer cluster.nodes" in many.stderr
    charged = {"slurm": {"account": "research"}}
    run = accounted.submit("good", cluster=charged, train={"args": ["--sleep", "300"]})
    run.wait_for_ranks()
    accounted.bed.slurm.run("scancel", run.slurm_job())
    assert run.wait()["state"] == "CANCELLED"
    words = ("sacct", "-n", "-P", "-X", "-o", "account,state", "-j", run.slurm_job())
    told: Callable[[], str] = lambda: accounted.bed.slurm.run(*words).stdout  # noqa: E731
    wait_until(lambda: told().startswith("research|CANCELLED"), told)  # slurmctld tells slurmdbd when it can


# -- where the job is submitted from


def test_variables_of_an_outer_job_do_not_leak_into_the_new_one(slurm: Site) -> None:
    slurm.environ.update(
        SBATCH_PARTITION="urgent",
        SBATCH_TIMELIMIT="99",
        SLURM_JOB_ID="1",
        SLURM_NTASKS="7",
        SLURM_HINT="nomultithread",
    )
    run = slurm.submit(train={"args": ["--env", "SLURM_HINT", "--env", "SLURM_NTASKS"]})
    run.succeed()
    found = shown(slurm, run.slurm_job())
    assert (found["Partition"], found["TimeLimit"]) == ("main", "00:30:00")
    told = run.reports()[0]["env"]
    assert (told.get("SLURM_HINT"), told["SLURM_NTASKS"]) == (None, "2")


def test_the_script_submitted_by_hand_gives_the_same_run(slurm: Site) -> None:
    done = slurm.orchestrate("submit", "--no-start", "--json", str(slurm.job()))
    said = json.loads(done.stdout)
    by_hand = slurm.bed.slurm.run(*said["command"], cwd="/tmp")
    assert by_hand.returncode == 0, by_hand.stderr
    run = slurm.run_of(said)
    run.succeed()
    assert run.slurm_job() == by_hand.stdout.split()[-1]
    assert run.status()["state"] == "SUCCEEDED"
    run.see_nothing_left()


def test_a_run_in_an_allocation_leaves_it_to_its_user(slurm: Site) -> None:
    job = slurm.job(cluster={"slots": 1})
    argv, environ = slurm.command("submit", "--in-allocation", "--follow", str(job))
    words = ["salloc", "--quiet", "--nodes=2", "--gres=gpu:2", "bash", "-c", '"$@" && "$@" && squeue -h', "x"]
    line = slurm.bed.slurm.command(*words, *argv)
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(line, env=environ, cwd=slurm.folder, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCEEDED  all 2 ranks on 2 hosts ended with 0") == 2
    assert " R " in done.stdout.splitlines()[-1]  # the allocation itself is still there
    outside = slurm.orchestrate("submit", "--in-allocation", str(slurm.job()))
    assert outside.returncode == 3
    assert "salloc" in outside.stderr


def test_an_ordinary_user_runs_and_cancels_on_slurm(slurm: Site) -> None:
    user = slurm.bed.users[ORDINARY]
    site = Site("slurm", user.home / slurm.folder.name, slurm.bed, ORDINARY)
    done = slurm.bed.slurm.run("mkdir", str(site.folder), user=ORDINARY)
    assert done.returncode == 0
    run = site.submit(train={"args": ["--sleep", "300"]})
    run.wait_for_ranks()
    assert {facts["uid"] for facts in run.reports().values()} == {user.uid}
    assert site.orchestrate("cancel", run.run_id).returncode == 0
    assert run.wait()["state"] == "CANCELLED"
    run.see_nothing_left()


def test_versions_of_every_host_are_kept(slurm: Site) -> None:
    run = slurm.submit()
    run.succeed()
    kept = json.loads((run.path / "attempt-1/hosts.json").read_text())
    assert sorted(kept) == ["node1", "node2"]
    assert {"python", "torch", "deepspeed", "accelerate"} <= set(kept["node1"]["versions"])
    assert run.events("versions_differ") == []


def test_gpu_ids_are_indexes_into_what_the_jobs_cgroup_shows(
    make_bed: Callable[..., Testbed], tmp_path: Path
) -> None:
    site = Site("slurm", tmp_path, make_bed(nodes=1, slots=2, slurm=True, cgroups=True))
    asked = {"nodes": 1, "slots": 1, "slurm": {"gpus_per_node": "1"}}
    first = site.submit("first", cluster=asked, train={"args": ["--sleep", "300"]})
    first.wait_for_ranks(1)
    second = site.submit("second", cluster=asked, train={"args": ["--env", "SLURM_JOB_GPUS"]})
    second.wait()
    told = second.reports()[0]["env"]
    assert (told["SLURM_JOB_GPUS"], told["CUDA_VISIBLE_DEVICES"]) == ("1", "0"), second.story()
    assert site.orchestrate("cancel", first.run_id).returncode == 0
