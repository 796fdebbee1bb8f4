"""A run that goes well: what ranks are given, what is kept of them, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import GATED_SCRIPT, LIGHT

if TYPE_CHECKING:
    from tests.contract.product import Run, Site

LAUNCHERS = ["torchrun", "deepspeed", "accelerate"]


def expected_environment(site: Site, slots: list[int]) -> dict[int, dict[str, str]]:
    """Return what every rank has to be given, by rank, without the port."""
    expected: dict[int, dict[str, str]] = {}
    for node, count in enumerate(slots):
        first = len(expected)
        for local in range(count):
            expected[first + local] = {
                **dict.fromkeys(("NODE_RANK", "GROUP_RANK", "CROSS_RANK"), str(node)),
                **dict.fromkeys(("LOCAL_WORLD_SIZE", "LOCAL_SIZE"), str(count)),
                "RANK": str(first + local),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(sum(slots)),
                "CROSS_SIZE": str(len(slots)),
                **expected_place(site, first, count),
            }
    return expected


def expected_place(site: Site, first: int, count: int) -> dict[str, str]:
    """Return the devices of a host's ranks and the way between hosts; simulated hosts share devices."""
    simulated = site.bed is None
    devices = range(first, first + count) if simulated else range(count)
    interface = "lo" if simulated else "eth0"
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)),
        "MASTER_ADDR": "127.0.0.1" if simulated else site.bed.nodes[0].address,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": f"={interface}",
    }


def see_environment(run: Run, slots: list[int]) -> None:
    """See that every rank was given what it should, and all the same port."""
    reports = run.reports()
    expected = expected_environment(run.site, slots)
    given = {rank: {name: facts["env"][name] for name in expected[0]} for rank, facts in reports.items()}
    assert given == expected
    ports = {facts["env"]["MASTER_PORT"] for facts in reports.values()}
    assert len(ports) == 1
    assert 1024 <= int(ports.pop()) < 65536


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_get_the_same_environment_from_every_launcher(site: Site, launcher: str) -> None:
    train = {"launcher": launcher, "args": ["--lines", "20", "--tail", "the end"]}
    run = site.submit(train=train, deepspeed={"zero_stage": 3, "micro_batch_per_gpu": 1})
    verdict = run.succeed()
    see_environment(run, [2, 2])
    see_kept(run, verdict)
    run.see_nothing_left()


def see_kept(run: Run, verdict: dict[str, Any]) -> None:
    """See that verdict, status, events and logs tell of this run and are complete."""
    hosts = run.site.hosts
    assert [host["name"] for host in verdict["hosts"]] == hosts
    assert verdict["run_id"] == run.run_id
    assert verdict["started"] < verdict["ended"]
    status = run.status()
    assert (status["state"], status["run_dir"]) == ("SUCCEEDED", str(run.path))
    assert [row["state"] for row in status["hosts"]] == ["ok", "ok"]
    assert sorted(event["rank"] for event in run.events("rank_exit")) == [0, 1, 2, 3]
    assert [event["left"] for event in run.events("host_ended")] == [[], []]
    for rank, facts in run.reports().items():
        stem = f"{hosts[rank // 2]}.rank{rank}"
        lines = "".join(f"out rank {rank} line {number}\n" for number in range(20))
        assert run.log(f"{stem}.out") == f"REPORT {json.dumps(facts)}\n{lines}the end"
        assert run.log(f"{stem}.err") == "".join(f"err rank {rank} line {number}\n" for number in range(20))


@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_uneven_slots_are_numbered_alike_by_both_launchers_that_can(pdsh: Site, launcher: str) -> None:
    hostfile = pdsh.bed.write_hostfile(pdsh.folder / "hostfile", [1, 3])
    run = pdsh.submit(cluster={"hostfile": str(hostfile)}, train={"launcher": launcher})
    run.succeed()
    see_environment(run, [1, 3])


def test_uneven_slots_with_accelerate_are_refused_before_anything_starts(pdsh: Site) -> None:
    hostfile = pdsh.bed.write_hostfile(pdsh.folder / "hostfile", [1, 3])
    job = pdsh.job(cluster={"hostfile": str(hostfile)}, train={"launcher": "accelerate"})
    done = pdsh.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "accelerate" in done.stderr
    assert "torchrun" in done.stderr  # the way out
    assert not (pdsh.folder / "runs").exists()


def test_two_runs_at_once_on_the_same_hosts_leave_each_other_alone(site: Site) -> None:
    # On Slurm hosts are shared by jobs that leave GPUs to each other.
    cluster = {"slurm": {"gpus_per_node": None}} if site.backend == "slurm" else {}
    steady = site.submit("steady", cluster=cluster, train={"args": ["--until", str(site.gate)]})
    steady.wait_for_ranks()
    failed = {"script": str(GATED_SCRIPT), "args": ["--exit-code", "3"]}
    failing = site.submit("failing", cluster=cluster, train=failed)
    assert failing.wait()["state"] == "FAILED"
    site.gate.touch()
    steady.succeed()
    assert steady.note(0, "sigterm") is None
    ports = [run.reports()[0]["env"]["MASTER_PORT"] for run in (steady, failing)]
    assert ports[0] != ports[1]
    listed = json.loads(site.orchestrate("list", "--json").stdout)
    assert {entry["run_id"] for entry in listed} == {steady.run_id, failing.run_id}
    for run in (steady, failing):
        run.see_nothing_left()


def test_a_taken_master_port_is_tried_again_on_another(site: Site) -> None:
    run = site.submit(train={"args": ["--bind-master-port-once", str(site.folder / "collided")]})
    run.succeed()
    assert len(run.events("retry")) == 1
    assert [path.name for path in sorted(run.path.glob("attempt-*"))] == ["attempt-1", "attempt-2"]
    first = json.loads((run.path / "attempt-1/verdict.json").read_text())
    assert (first["state"], first["first_failure"]["rank"]) == ("FAILED", 0)
    assert "Address already in use" in first["first_failure"]["message"]
    starts = run.events("start")
    assert starts[0]["port"] != starts[1]["port"]
    run.see_nothing_left()


def test_a_finished_run_is_not_driven_again(local: Site) -> None:
    run = local.submit(train={"args": ["--lines", "1"]})
    run.succeed()
    again = local.orchestrate("supervise", str(run.path))
    assert again.returncode == 3
    assert "verdict already" in again.stderr
    rendered = local.orchestrate("render", str(local.job(train={"args": ["--lines", "1"]})))
    assert f"-m orchestrator.supervisor {shlex.quote(str(local.folder / 'runs'))}" in rendered.stdout


def test_logs_are_shown_by_host_rank_and_pattern(local: Site) -> None:
    run = local.submit(train={"args": ["--lines", "3"]})
    run.succeed()
    shown = local.orchestrate("logs", run.run_id, "--rank", "1-2", "--grep", "line 2$")
    assert sorted(shown.stdout.splitlines()) == [
        *("host-0:1 err rank 1 line 2", "host-0:1 out rank 1 line 2"),
        *("host-1:2 err rank 2 line 2", "host-1:2 out rank 2 line 2"),
    ]
    told = local.orchestrate("logs", run.run_id, "--json", "--attempt", "all").stdout.splitlines()
    times = [json.loads(line)["time"] for line in told]
    assert None not in times  # every byte of every log was noted by an agent
    assert times == sorted(times)
    assert "no such rank" in local.orchestrate("logs", run.run_id, "--rank", "4").stderr


def test_torchrun_of_these_runs_is_the_real_one_without_the_parts_that_it_does_not_use() -> None:
    torch = pytest.importorskip("torch")
    look = "import sys, torch.distributed.run as run; print(run.__file__, 'torch.nn' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", look, "late-launch", "torch.distributed.run"],
        env=os.environ | LIGHT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [str(Path(torch.__file__).parent / "distributed/run.py"), "False"], (
        done.stderr
    )
