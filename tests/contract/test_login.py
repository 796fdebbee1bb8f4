"""Jobs that are submitted from a laptop through a login host: what is sent, run, shown and fetched."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.contract.laptop import SCRIPT, held
from tests.contract.product import PATIENCE, RANK_SCRIPT, wait_until

if TYPE_CHECKING:
    from tests.contract.laptop import Laptop

pytest.importorskip("paramiko")


def test_a_job_is_sent_run_shown_and_fetched_over_one_login(laptop: Laptop) -> None:
    before = laptop.logins()
    laptop.environ["TOKEN"] = "s3cret-" + laptop.folder.name
    told = laptop.submit(train={"secrets": ["TOKEN"]})
    assert told["run_dir"] == str(laptop.home / "orchestrate/runs" / told["run_id"])
    logs = laptop.orchestrate("logs", "-f", told["run_id"])
    assert f"host-0:1 rank 1 data {laptop.environ['TOKEN']}" in logs.stdout, logs.stderr
    status = laptop.wait(told["run_id"])
    assert status["state"] == "SUCCEEDED"
    assert laptop.status("last")["run_id"] == told["run_id"]
    listed = json.loads(laptop.orchestrate("list", "--json").stdout)
    assert [(run["run_id"], run["state"], run["login"]) for run in listed] == [
        (told["run_id"], "SUCCEEDED", "node1")
    ]
    done = laptop.orchestrate("fetch", told["run_id"])
    assert done.returncode == 0, done.stderr
    got = laptop.project / told["run_id"]
    assert json.loads((got / "verdict.json").read_text())["state"] == "SUCCEEDED"
    assert "rank 0 data" in (got / "attempt-1/logs/host-0.rank0.out").read_text()
    assert not list(got.rglob("secrets.env"))
    assert laptop.logins() == before + 1


def test_the_workdir_arrives_as_git_has_it(laptop: Laptop) -> None:
    told = laptop.submit()
    there = laptop.home / "orchestrate/jobs" / told["run_id"] / "workdir"
    assert {path.name for path in there.iterdir()} == {"train.py", "it's dätä $x.txt", "run.sh", "link to"}
    assert os.access(there / "run.sh", os.X_OK)
    assert (there / "link to").readlink().name == "run.sh"
    assert laptop.wait(told["run_id"])["state"] == "SUCCEEDED"


def test_the_second_submit_installs_nothing_and_sends_what_is_new(laptop: Laptop) -> None:
    laptop.submit("first")
    (laptop.project / "train.py").write_text(SCRIPT + "print('changed')\n")
    stored = set((laptop.home / "orchestrate/files").rglob("*"))
    done = laptop.orchestrate("submit", str(laptop.job("first")))
    assert done.returncode == 0
    assert "installing" not in done.stderr
    new = [path for path in set((laptop.home / "orchestrate/files").rglob("*")) - stored if path.is_file()]
    assert [path.read_text() for path in new] == [SCRIPT + "print('changed')\n"]


def test_two_first_submits_at_once_do_not_clash(laptop: Laptop) -> None:
    installed = laptop.uninstall()
    started = [laptop.start("submit", str(laptop.job(name)), "--json") for name in ("one", "two", "three")]
    ends = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ends
    assert len({json.loads(out)["run_id"] for out, _ in ends}) == 3
    assert len(list(installed.iterdir())) == 1


@pytest.mark.parametrize("backend", ["pdsh", "ssh"])
def test_the_login_host_starts_the_job_on_other_hosts(laptop: Laptop, backend: str) -> None:
    (laptop.project / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    cluster = {"backend": backend, "hostfile": "hosts", "ssh": {"config": str(laptop.bed.ssh_config)}}
    told = laptop.submit(cluster={**cluster, "nodes": None, "slots": None})
    status = laptop.wait(told["run_id"])
    assert status["state"] == "SUCCEEDED", status
    assert [host["host"] for host in status["hosts"]] == ["node1", "node2"]


def test_a_login_host_behind_another_with_noise_in_its_shells(far_laptop: Laptop) -> None:
    done = far_laptop.orchestrate("submit", str(far_laptop.job()), "--json")
    assert done.returncode == 0, done.stderr
    assert "Authorised use only" in done.stderr
    assert "Welcome to the cluster" not in done.stdout + done.stderr
    run_id = json.loads(done.stdout)["run_id"]
    assert far_laptop.wait(run_id)["state"] == "SUCCEEDED"
    logs = far_laptop.orchestrate("logs", run_id, "--rank=1")
    assert logs.stdout.splitlines()[0] == "host-0:1 rank 1 data None"
    assert "command not found" not in logs.stderr


def test_a_fetch_goes_on_where_it_ended_and_copies_nothing_twice(laptop: Laptop) -> None:
    told = laptop.submit()
    laptop.wait(told["run_id"])
    run_dir = laptop.home / "orchestrate/runs" / told["run_id"]
    (run_dir / "ckpt/step 1").mkdir(parents=True)
    big = run_dir / "ckpt/step 1/model.bin"
    big.write_bytes(os.urandom(5 << 20))
    (run_dir / "ckpt/latest").symlink_to("step 1")
    target = laptop.folder / "got"
    found = big.stat()
    part = target / "ckpt/step 1" / f".model.bin.{found.st_size}-{found.st_mtime_ns}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(big.read_bytes()[: 4 << 20])
    other = part.with_name(".model.bin.7-7.part")
    other.touch()
    done = laptop.orchestrate("fetch", told["run_id"], "--what", "ckpt", "-o", str(target))
    assert done.stdout == f"{target}  2 files copied, 1.0 MB\n", done.stderr
    assert (target / "ckpt/step 1/model.bin").read_bytes() == big.read_bytes()
    assert (target / "ckpt/latest").readlink().name == "step 1"
    assert not [path for path in target.rglob("*") if path.name.endswith(".part")]
    again = laptop.orchestrate("fetch", told["run_id"], "--what", "ckpt", "-o", str(target))
    assert again.stdout == f"{target}  0 files copied, 0.0 MB\n"
    for what in ("../..", "gone", "/etc"):
        done = laptop.orchestrate("fetch", told["run_id"], "--what", what, "-o", str(target))
        assert done.returncode == 1
        assert f"--what: no such path in the run directory (got {what})" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_fetch_under_which_the_connection_ends_is_finished(laptop: Laptop) -> None:
    told = laptop.submit()
    laptop.wait(told["run_id"])
    run_dir = laptop.home / "orchestrate/runs" / told["run_id"]
    (run_dir / "big.bin").write_bytes(os.urandom(40 << 20))
    node, target = laptop.bed.node("node1"), laptop.folder / "got"
    node.slow("8mbit")  # all of it takes 40 s: the cut comes long before
    try:
        process = laptop.start("fetch", told["run_id"], "--what", "big.bin", "-o", str(target))
        wait_until(lambda: any(p.stat().st_size > 1 << 20 for p in target.glob(".big*")), lambda: "a part")
        laptop.cut()
        node.unslow()
        out, errors = process.communicate(timeout=PATIENCE)
    finally:
        node.unslow()
    assert process.returncode == 0, errors
    assert (target / "big.bin").read_bytes() == (run_dir / "big.bin").read_bytes()
    assert float(out.split()[-2]) < 41.9  # MB: what had come before was not sent again


def test_a_slurm_job_is_submitted_and_cancelled_from_the_laptop(slurm_laptop: Laptop) -> None:
    assert slurm_laptop.bed.slurm is not None
    setup = [f"export SLURM_CONF={slurm_laptop.bed.slurm.conf}"]
    cluster = {"backend": "slurm", "nodes": 2, "slots": 1, "login": {"setup": setup}}
    told = slurm_laptop.submit(cluster=cluster)
    assert int(told["slurm_job_id"]) > 0
    status = slurm_laptop.wait(told["run_id"])
    assert status["state"] == "SUCCEEDED", status
    assert [host["host"] for host in status["hosts"]] == ["node1", "node2"]
    told = slurm_laptop.submit(cluster=cluster, train={"args": ["300"]})
    done = slurm_laptop.orchestrate("cancel", told["run_id"])
    assert done.returncode == 0, done.stderr
    assert slurm_laptop.wait(told["run_id"])["state"] == "CANCELLED"
    refused = slurm_laptop.orchestrate(
        "submit", str(slurm_laptop.job(cluster={**cluster, "slurm": {"partition": "gone"}}))
    )
    assert refused.returncode == 3
    assert "partition" in refused.stderr


def test_a_sweep_is_followed_from_the_laptop(laptop: Laptop) -> None:
    job = laptop.job(matrix={"train.args.0": ["0", "0.1"]})
    done = laptop.orchestrate("submit", str(job), "--json")
    assert done.returncode == 0, done.stderr
    sweep = json.loads(done.stdout)["sweep_id"]

    def over() -> bool:
        (listed,) = json.loads(laptop.orchestrate("list", "--json").stdout)
        return (listed["run_id"], listed["state"]) == (sweep, "SUCCEEDED")

    wait_until(over, lambda: laptop.orchestrate("status", sweep).stdout)
    assert f"{sweep}.1" in laptop.orchestrate("status", sweep).stdout
    assert "rank 1 data" in laptop.orchestrate("logs", f"{sweep}.1").stdout


def test_submit_follows_from_the_laptop(laptop: Laptop) -> None:
    done = laptop.orchestrate("submit", "--follow", str(laptop.job(train={"args": ["0.5"]})))
    assert done.returncode == 0, done.stderr
    assert "rank 0 data None" in done.stdout
    assert "SUCCEEDED  all 2 ranks" in done.stdout
    done = laptop.orchestrate("submit", "--follow", str(laptop.job(train={"args": ["x"]})))
    assert done.returncode == 1


def test_a_failure_is_the_same_seen_from_the_laptop(laptop: Laptop) -> None:
    job = laptop.job(train={"script": str(RANK_SCRIPT), "args": ["--exit-code", "3", "--fail-rank", "1"]})
    told = json.loads(laptop.orchestrate("submit", str(job), "--json").stdout)
    first = laptop.wait(told["run_id"])["verdict"]["first_failure"]
    assert (first["rank"], first["exit_code"]) == (1, 3)
    shown = laptop.orchestrate("report", told["run_id"])
    page = laptop.project / f"{told['run_id']}.html"
    assert shown.stdout.strip() == str(page), shown.stderr
    assert "rank 1" in page.read_text()


def test_ctrl_c_ends_the_following_there_and_not_the_run(laptop: Laptop) -> None:
    told = laptop.submit(train={"args": ["300"]})
    follower = laptop.start("logs", "-f", told["run_id"])
    assert follower.stdout is not None
    wait_until(lambda: "rank 0" in follower.stdout.readline(), lambda: "no log")
    assert len(held(laptop, "orchestrator.login.far")) == 1
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=PATIENCE)
    assert follower.returncode == 130
    assert f"{told['run_id']} goes on" in errors
    wait_until(lambda: not held(laptop, "orchestrator.login.far"), lambda: held(laptop, "login.far"))
    wait_until(lambda: laptop.status(told["run_id"])["state"] == "RUNNING", lambda: "the run goes on")
    done = laptop.orchestrate("cancel", told["run_id"])
    assert (done.returncode, "CANCELLED" in done.stdout) == (0, True)


def test_a_follower_that_is_killed_leaves_nothing_there(laptop: Laptop) -> None:
    told = laptop.submit(train={"args": ["300"]})
    follower = laptop.start("logs", "-f", told["run_id"])
    assert follower.stdout is not None
    wait_until(lambda: "rank 0" in follower.stdout.readline(), lambda: "no log")
    follower.kill()
    follower.communicate()
    wait_until(lambda: not held(laptop, "login.far"), lambda: held(laptop, "login.far"))
    laptop.orchestrate("cancel", told["run_id"])


# -- what is wrong, in the words of the laptop


def test_errors_of_the_login_host_name_the_laptops_files(laptop: Laptop) -> None:
    job = laptop.job(train={"env_file": "/only/there.env"})
    done = laptop.orchestrate("submit", str(job))
    assert done.returncode == 2
    assert "/only/there.env" in done.stderr
    assert "orchestrate/jobs" not in done.stderr
    assert laptop.orchestrate("list", "--json").stdout.strip() == "[]"


def test_what_is_wrong_here_is_told_before_anybody_logs_in(laptop: Laptop) -> None:
    before = laptop.logins()
    for changes, told in (
        (
            {"train": {"script": "gone.py"}},
            "train.script: there is no such file on this machine (got gone.py)",
        ),
        ({"train": {"script": "not tracked"}}, "train.script: is not among the files that are sent"),
        (
            {"cluster": {"hostfile": "gone"}},
            "cluster.hostfile: there is no such file on this machine (got gone)",
        ),
        ({"train": {"secrets": ["NOT_SET_ANYWHERE"]}}, "train.secrets: not set in the environment"),
    ):
        job = laptop.job(**changes)
        done = laptop.orchestrate("submit", str(job))
        assert done.returncode == 2
        assert told in done.stderr
        assert done.stderr.startswith(f"error: {job}:")
    assert laptop.logins() == before


def test_too_much_is_refused_by_name(laptop: Laptop) -> None:
    (laptop.project / "data").mkdir()
    with (laptop.project / "data/big.bin").open("wb") as file:
        file.truncate(3 << 20)
    login = laptop.login(push=["- *.yaml", "- my.log"], push_limit=2)
    done = laptop.orchestrate("submit", str(laptop.job(cluster={"login": login})))
    assert done.returncode == 3
    assert "3 MiB would be sent, the limit is 2 MiB; the biggest: data/big.bin (3 MiB)" in done.stderr


def test_no_python_there_is_told(laptop: Laptop) -> None:
    laptop.uninstall()
    done = laptop.orchestrate("submit", str(laptop.job(cluster={"login": {"python": "/no/python"}})))
    assert done.returncode == 3
    assert "node1: cluster.login.python: is no Python 3.11 or newer there (got /no/python)" in done.stderr
