"""The testbed's Slurm: a real cluster that preempts, requeues, loses hosts, and is gone afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.testbed import Testbed, TestbedError, cgroups, network, processes
from tests.testbed.accounts import ORDINARY
from tests.testbed.fixtures import require_slurm
from tests.testbed.state import beds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def cluster(slurm_bed: Testbed) -> Iterator[Testbed]:
    """The session's cluster, with no job left of this test."""
    yield slurm_bed
    slurm_bed.slurm.cancel_all()


def until(true: Callable[[], object], within: float = 300.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, true
        time.sleep(0.1)


def submit(bed: Testbed, *options: str, script: str = "sleep 300", user: str = ORDINARY) -> str:
    """Submit a batch job and return its id."""
    home = bed.users[user].home
    where = ["--parsable", f"--chdir={home}", f"--output={home}/%j.out"]
    done = bed.slurm.run("sbatch", *where, *options, "--wrap", script, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def output(bed: Testbed, job: str) -> list[str]:
    """Return the lines that an ordinary user's job has printed."""
    path = bed.users[ORDINARY].home / f"{job}.out"
    return path.read_text().splitlines() if path.exists() else []


def shown(bed: Testbed, job: str, key: str) -> str:
    """Return one value that `scontrol show job` prints."""
    text = bed.slurm.run("scontrol", "show", "job", job).stdout
    return next((word.partition("=")[2] for word in text.split() if word.startswith(f"{key}=")), "")


def nobody_left(bed: Testbed) -> bool:
    """Say whether nothing runs on the hosts; sshd and slurmstepd outlive what they tell the end of."""
    return not any(node.processes() for node in bed.nodes)


def runs(bed: Testbed, job: str) -> Callable[[], bool]:
    """Return a question: has the job begun on its hosts."""
    return lambda: bed.slurm.jobs().get(job) == "RUNNING"


def test_srun_starts_a_task_on_every_host(cluster: Testbed) -> None:
    done = cluster.slurm.run("srun", "-N2", "hostname")
    assert (sorted(done.stdout.split()), done.stderr) == (["node1", "node2"], "")


def test_a_host_knows_the_cluster_as_a_login_node_does(cluster: Testbed) -> None:
    done = cluster.ssh("node1", "sinfo -h -p main -o '%N %G'")
    assert done.stdout == "node[1-2] gpu:fake:2\n", done.stderr
    until(lambda: nobody_left(cluster))  # slurmd is not a job's


def test_an_ordinary_users_batch_job_has_that_users_id_and_gpus(cluster: Testbed) -> None:
    say = "srun sh -c 'echo $SLURMD_NODENAME $(id -un) $CUDA_VISIBLE_DEVICES'"
    job = submit(cluster, "-N2", "--gpus-per-node=fake:2", script=say)
    until(lambda: len(output(cluster, job)) == 2)
    assert sorted(output(cluster, job)) == [f"node1 {ORDINARY} 0,1", f"node2 {ORDINARY} 0,1"]
    assert (cluster.users[ORDINARY].home / f"{job}.out").stat().st_uid == cluster.users[ORDINARY].uid


def test_two_jobs_share_a_hosts_gpus(cluster: Testbed) -> None:
    options = ["-w", "node1", "--gpus=1"]
    jobs = [submit(cluster, *options, script="echo $SLURM_JOB_GPUS; sleep 300") for _ in range(2)]
    until(lambda: all(output(cluster, job) for job in jobs))
    assert sorted(output(cluster, job)[0] for job in jobs) == ["0", "1"]


def test_submit_command_reaches_the_cluster(cluster: Testbed) -> None:
    line = cluster.submit_command(["squeue", "--me", "--noheader"])
    done = subprocess.run(line, env=cluster.submit_env(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_preempted_job_is_requeued_and_starts_again(cluster: Testbed) -> None:
    job = submit(cluster, "-N2", "--exclusive", script="echo start $SLURM_RESTART_COUNT; sleep 300")
    until(lambda: output(cluster, job) == ["start"])
    urgent = submit(cluster, "-N2", "--exclusive", "-p", "urgent", script="sleep 1")
    until(lambda: cluster.slurm.jobs().get(urgent) == "COMPLETED")
    until(lambda: shown(cluster, job, "Restarts") == "1" and runs(cluster, job)())
    until(lambda: "start 1" in output(cluster, job))


def test_a_preempted_job_of_the_cancelling_partition_ends(cluster: Testbed) -> None:
    job = submit(cluster, "-N2", "--exclusive", "-p", "cancelled")
    until(runs(cluster, job))
    submit(cluster, "-N2", "--exclusive", "-p", "urgent", script="sleep 1")
    until(lambda: cluster.slurm.jobs().get(job) == "PREEMPTED")


def test_a_graceful_partition_warns_before_it_preempts(cluster: Testbed) -> None:
    script = "trap 'echo warned' TERM; echo up; while :; do sleep 0.1; done"
    job = submit(
        cluster, "-N2", "--exclusive", "-p", "graceful", script=f"srun -N1 sh -c {json.dumps(script)}"
    )
    until(lambda: output(cluster, job) == ["up"])
    submit(cluster, "-N2", "--exclusive", "-p", "urgent", script="sleep 1")
    until(lambda: "warned" in output(cluster, job))


def test_a_crashed_host_is_noticed_and_can_be_revived(cluster: Testbed) -> None:
    node = cluster.node("node2")
    job = submit(cluster, "-w", "node2")
    until(lambda: node.processes(f"job{int(job):05d}"))
    node.crash()
    assert node.processes() == []
    until(lambda: cluster.slurm.node_states().get("node2", "").startswith("down"))
    cluster.slurm.revive(node)
    until(lambda: shown(cluster, job, "Restarts") == "1" and runs(cluster, job)())
    assert cluster.ssh("node2", "hostname").stdout == "node2\n"


def test_a_controller_that_comes_back_still_knows_the_jobs(cluster: Testbed) -> None:
    job = submit(cluster, "-N2", script="echo begin; sleep 3; echo end")
    until(lambda: output(cluster, job) == ["begin"])
    cluster.slurm.stop_controller()
    assert "is DOWN" in cluster.slurm.run("scontrol", "ping").stdout
    cluster.slurm.start_controller()
    until(lambda: cluster.slurm.jobs().get(job) == "COMPLETED")
    assert output(cluster, job) == ["begin", "end"]


def test_a_slurmd_that_comes_back_finds_its_job(cluster: Testbed) -> None:
    job = submit(cluster, "-w", "node1", script="echo begin; sleep 2; echo end")
    until(lambda: output(cluster, job) == ["begin"])
    node = cluster.node("node1")
    cluster.slurm.stop_slurmd(node)
    cluster.slurm.start_slurmd(node)
    until(lambda: cluster.slurm.jobs().get(job) == "COMPLETED")


def test_cleaning_up_ends_stubborn_jobs_and_resumes_hosts(cluster: Testbed) -> None:
    job = submit(cluster, script="trap '' TERM; sleep 300; sleep 300")
    until(runs(cluster, job))
    cluster.slurm.run("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    cluster.slurm.stop_slurmd(cluster.node("node1"))
    cluster.slurm.cancel_all()
    until(lambda: cluster.slurm.node_states() == {"node1": "idle", "node2": "idle"})
    until(lambda: nobody_left(cluster))


@pytest.mark.skipif(cgroups.missing() is not None, reason=str(cgroups.missing()))
def test_with_cgroups_a_job_sees_its_own_gpus_and_leaves_no_process(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed(nodes=1, slurm=True, cgroups=True, ordinary_user=True)
    gpus = bed.slurm.folder / "gpus"
    script = (
        f"echo $SLURM_JOB_GPUS $CUDA_VISIBLE_DEVICES; head {gpus}/gpu1 2>&1; setsid sleep 300 & sleep 300"
    )
    jobs = [submit(bed, "--gpus=1", script=script) for _ in range(2)]
    until(lambda: all(len(output(bed, job)) == 2 for job in jobs))
    said = sorted(output(bed, job) for job in jobs)
    # Each job's GPU is its number 0. The kernel refuses one job the other's device, which has no driver.
    assert [lines[0] for lines in said] == ["0 0", "1 0"]
    assert ["not permitted" in lines[1] for lines in said] == [True, False]
    bed.slurm.run("scancel", *jobs)
    bed.slurm.wait_idle()
    until(lambda: nobody_left(bed))
    bed.close()
    assert not list(cgroups.MACHINE.glob(f"*/{bed.network.name}-*"))


def test_without_accounting_sacct_says_so(cluster: Testbed) -> None:
    done = cluster.slurm.run("sacct")
    assert done.returncode == 1
    assert "Slurm accounting storage is disabled" in done.stderr


def test_with_accounting_sacct_answers_and_a_bad_account_is_refused(accounting_bed: Testbed) -> None:
    slurm = accounting_bed.slurm
    assert slurm.run("srun", "-N2", "--gpus-per-node=1", "hostname", user=ORDINARY).returncode == 0
    fields = [
        "--noheader",
        "--parsable2",
        "--allocations",
        "--starttime=now-1hour",
        "--format=user,account,state,exitcode,nodelist",
    ]
    words = f"{ORDINARY}|research|COMPLETED|0:0|node[1-2]"
    until(lambda: words in slurm.run("sacct", *fields, user=ORDINARY).stdout.splitlines())
    done = slurm.run("sbatch", "-A", "poor", "--wrap", "true", user=ORDINARY)
    assert done.returncode == 1
    assert "Invalid account" in done.stderr


def test_two_clusters_at_once(cluster: Testbed, make_bed: Callable[..., Testbed]) -> None:
    other = make_bed(nodes=1, slots=4, slurm=True)
    names = [bed.slurm.run("scontrol", "show", "config").stdout for bed in (cluster, other)]
    assert f"= {cluster.network.name}\n" in names[0]
    assert f"= {other.network.name}\n" in names[1]
    say = ["srun", "--gpus=4", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    assert other.slurm.run(*say).stdout == "0,1,2,3\n"
    assert cluster.slurm.run(*say[:1], "-N2", "hostname").returncode == 0


@pytest.mark.parametrize("accounting", [False, True])
def test_nothing_is_left_of_a_closed_cluster(make_bed: Callable[..., Testbed], accounting: bool) -> None:
    bed = make_bed(slurm=True, accounting=accounting)
    submit(bed, "-N2", script="srun sleep 300 & setsid sleep 300", user="root")
    until(lambda: all(node.processes("sleep") for node in bed.nodes))
    names = network.namespaces(bed.network)
    assert len(list(bed.slurm.services.names())) == 4 + 2 * accounting
    with network.held(names) as inodes:
        bed.close()
        assert processes.in_namespaces(inodes) == []
    assert processes.find(f"{bed.directory}/") == []
    assert not bed.directory.exists()


@pytest.mark.testbed
def test_a_kept_cluster(tmp_path: Path) -> None:
    require_slurm()

    def testbed(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tests.testbed", "--dir", str(tmp_path / "beds"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    up = testbed("up", "--slurm", "--user")
    try:
        assert "backend: slurm" in up.stdout, up.stderr
        done = testbed("shell", "submit", "srun", "-N2", "hostname")
        (state,) = beds(tmp_path / "beds")
        story = Testbed.load(state).slurm.story()
        assert sorted(done.stdout.split()) == ["node1", "node2"], done.stderr + story
        done = testbed("shell", "--user", ORDINARY, "node1", "srun", "-N1", "-w", "node2", "id", "-un")
        assert done.stdout == f"{ORDINARY}\n", done.stderr
    finally:
        down = testbed("down")
    assert down.returncode == 0, down.stderr
    assert processes.find(str(tmp_path / "beds")) == []


def test_64_hosts_come_up_and_run_one_job(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed(nodes=64, slurm=True)
    assert len(set(bed.slurm.run("srun", "-N64", "hostname").stdout.split())) == 64


def test_options_that_cannot_go_together_are_refused(
    make_bed: Callable[..., Testbed], tmp_path: Path
) -> None:
    with pytest.raises(TestbedError, match="accounting=True needs slurm=True"):
        Testbed.up(accounting=True)
    with pytest.raises(TestbedError, match="jump"):
        Testbed.up(slurm=True, jump=True)
    with pytest.raises(TestbedError, match="too long a path"):
        make_bed(slurm=True, base=tmp_path / ("x" * 100))
    bed = make_bed(nodes=1)
    with pytest.raises(TestbedError, match="slurm=True"):
        _ = bed.slurm
