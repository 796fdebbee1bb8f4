"""One rank or one host fails: everything ends, and the verdict names what failed first."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.product import GATED_SCRIPT, Run, Site, wait_until
from tests.testbed import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "exit code": (["--exit-code", "7"], {"exit_code": 7, "signal": None}),
    "signal": (["--signal", "SIGSEGV"], {"exit_code": None, "signal": signal.SIGSEGV}),
    "exception": (["--raise", "loss is nan ∞"], {"exit_code": 1, "signal": None}),
}


def submit_failing(site: Site, *words: str, **changes: Any) -> Run:
    """Submit a run of which rank 2 fails once every rank runs; the others would go on for minutes."""
    words = ("--fail-rank", "2", "--sleep", "300", *words)
    return site.submit(train={"script": str(GATED_SCRIPT), "args": list(words)}, **changes)


def see_rank_2_named(run: Run, verdict: dict[str, Any]) -> dict[str, Any]:
    """See that rank 2 is the cause and the others its victims; return the first failure."""
    first: dict[str, Any] = verdict["first_failure"]
    named = (verdict["state"], verdict["undetermined"], first["rank"], first["local_rank"], first["host"])
    assert named == ("FAILED", False, 2, 0, run.site.hosts[1]), run.story()
    assert run.roles() == {0: "victim", 1: "victim", 2: "cause", 3: "victim"}
    assert (run.path / "attempt-1/logs" / first["log"]).is_file()
    assert verdict["started"] < first["time"] < verdict["ended"]
    return first


def test_the_first_failure_is_named_and_the_others_are_stopped_for_it(site: Site) -> None:
    see_the_first_failure_named(site, "exception")


@pytest.mark.parametrize("way", ["exit code", "signal"])
def test_other_ways_to_fail_are_told_apart_which_no_backend_sees(local: Site, way: str) -> None:
    see_the_first_failure_named(local, way)


def see_the_first_failure_named(site: Site, way: str) -> None:
    words, ending = WAYS[way]
    run = submit_failing(site, *words)
    first = see_rank_2_named(run, run.wait())
    assert {key: first[key] for key in ending} == ending
    assert ("RuntimeError: loss is nan ∞" in first["message"]) == (way == "exception")
    failed_at = run.note(2, "exit")
    for rank in (0, 1, 3):
        told_at = run.note(rank, "sigterm")
        assert told_at is not None
        assert told_at > failed_at
    assert {rank["signal"] for rank in run.rank_ends() if rank["role"] == "victim"} == {signal.SIGTERM}
    run.see_nothing_left()


@pytest.fixture
def bystanders(site: Site) -> Iterator[list[int]]:
    """Processes of the same user on the same hosts, one of them named like a rank."""
    lines = [["sleep", "600"], ["bash", "-c", "exec -a rank_script.py sleep 600"]]
    if site.bed is not None:
        lines = [node.command(line) for node in site.bed.nodes for line in lines]
    started = [subprocess.Popen(line, start_new_session=True) for line in lines]
    yield [process.pid for process in started]
    for process in started:
        process.kill()
        process.wait()


def test_ranks_that_ignore_sigterm_are_killed_with_all_their_children(
    site: Site, bystanders: list[int]
) -> None:
    words = ("--exit-code", "3", "--ignore-sigterm", "--children", "4")
    run = submit_failing(site, *words, grace=5)  # time to note it, on a busy machine too
    verdict = run.wait()
    see_rank_2_named(run, verdict)
    assert sum(len(facts["children"]) for facts in run.reports().values()) == 16
    assert {rank["signal"] for rank in run.rank_ends() if rank["role"] == "victim"} == {signal.SIGKILL}
    assert [run.note(rank, "sigterm") is not None for rank in (0, 1, 3)] == [True, True, True]
    wait_until(lambda: not run.living(), run.living)
    assert all(processes.read(pid) is not None for pid in bystanders)


def submit_sleeping(site: Site, **changes: Any) -> Run:
    """Submit a run that goes on for minutes, and wait until its ranks run."""
    run = site.submit(train={"args": ["--sleep", "300", "--children", "4"]}, **changes)
    run.wait_for_ranks()
    return run


@pytest.mark.parametrize("who", ["pid", "keeper"])
def test_a_killed_agent_or_keeper_takes_its_ranks_along_and_is_named(site: Site, who: str) -> None:
    run = submit_sleeping(site)
    second = site.hosts[1]
    (ready,) = [event for event in run.events("host_ready") if event["host"] == second]
    os.kill(ready[who], signal.SIGKILL)
    verdict = run.wait()
    first = verdict["first_failure"]
    assert (verdict["state"], first["host"], first["rank"]) == ("FAILED", second, None), run.story()
    assert {"pid": "agent", "keeper": "keeper"}[who] in first["message"]
    assert [host["state"] for host in verdict["hosts"]] == ["ended", "failed"]
    run.see_nothing_left()


def test_a_killed_rank_is_named_with_the_signal(site: Site) -> None:
    run = submit_sleeping(site)
    os.kill(run.reports()[2]["pid"], signal.SIGKILL)
    first = see_rank_2_named(run, run.wait())
    assert (first["signal"], first["exit_code"]) == (signal.SIGKILL, None)
    run.see_nothing_left()


def test_a_killed_training_launcher_ends_the_run(site: Site) -> None:
    run = submit_sleeping(site)
    rank = run.reports()[3]["pid"]
    shim = processes.read(rank).parent
    os.kill(processes.read(shim).parent, signal.SIGKILL)
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    assert verdict["hosts"][1]["launcher_exit_code"] == -signal.SIGKILL
    first = verdict["first_failure"]
    assert first is not None, run.story()
    assert (first["host"], first["rank"], first["signal"]) == (site.hosts[1], None, signal.SIGKILL)
    assert "the training launcher was killed by SIGKILL" in first["message"]
    run.see_nothing_left()


def test_a_script_that_is_not_there_is_told_with_its_path(site: Site) -> None:
    job = site.job(train={"script": "gone/train.py"})
    done = site.orchestrate("submit", "--follow", str(job))
    if site.backend == "local":
        assert done.returncode == 2
        assert f"{site.folder}/gone/train.py" in done.stderr
    else:
        assert done.returncode == 1
        assert f"the script {site.folder}/gone/train.py does not exist here" in done.stdout


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"python": "python9"}, "train.python python9 is not a program here"),
        ({"setup": ["true", "ls /gone && true"]}, "line 2 of train.setup ended with 2: ls /gone && true"),
        ({"workdir": "/gone"}, "/gone"),
        ({"python": "/usr/bin/python3"}, "/usr/bin/python3 has no module 'torch'"),
    ],
    ids=["python", "setup", "workdir", "module"],
)
def test_what_cannot_start_is_told_of_every_host(site: Site, train: dict[str, Any], told: str) -> None:
    if site.backend == "local" and "workdir" in train:
        assert site.orchestrate("submit", str(site.job(train=train))).returncode == 2
        return
    run = site.submit(train=train)
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    assert told in verdict["summary"], run.story()
    assert set(run.roles().values()) == {"never started"}
    assert run.status()["state"] == "FAILED"
    assert run.reports() == {}
    run.see_nothing_left()
