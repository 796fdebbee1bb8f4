"""Hosts that do not see the run directory: it is sent to them, and what they wrote comes back."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.contract.product import RANK_SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.product import Run, Site


def on_host(site: Site, name: str, path: Path) -> set[str]:
    """Return the files below a folder as a host sees it, relative to it."""
    done = site.bed.node(name).run(["find", str(path), "-type", "f", "-printf", r"%P\n"])
    return set(done.stdout.splitlines())


def see_logs_came_back(run: Run, count: int) -> None:
    """See that every byte that ranks printed is in the logs here."""
    for rank, facts in run.reports().items():
        stem = f"{facts['host']}.rank{rank}"
        lines = "".join(f"out rank {rank} line {number}\n" for number in range(count))
        assert run.log(f"{stem}.out") == f"REPORT {json.dumps(facts)}\n{lines}no newline"
        assert run.log(f"{stem}.err") == "".join(
            f"err rank {rank} line {number}\n" for number in range(count)
        )
    for host in ("node1", "node2"):
        assert "nothing of the run is left here" in run.log(f"{host}.log")


@pytest.mark.parametrize("shared_disk", ["auto", False])
def test_the_bundle_is_sent_and_logs_come_back_to_the_byte(apart: Site, shared_disk: str | bool) -> None:
    words = ["--lines", "3000", "--tail", "no newline"]
    run = apart.submit(cluster={"shared_disk": shared_disk}, train={"args": words})
    run.succeed()
    assert {event["shared"] for event in run.events("host_ready")} == {False}
    assert sorted(run.reports()) == [0, 1, 2, 3]
    see_logs_came_back(run, 3000)
    assert sorted(path.name for path in (run.path / "attempt-1/errors").iterdir()) == [
        f"node{1 + rank // 2}.rank{rank}.json" for rank in range(4)
    ]
    run.see_nothing_left()
    assert [on_host(apart, node.name, run.path) for node in apart.bed.nodes] == [set(), set()]


WRITES = "import os, sys; open(sys.argv[3] + '/rank-' + os.environ['RANK'], 'w').write('weights')"


def test_what_a_script_writes_into_a_sent_run_directory_stays(apart: Site) -> None:
    script = apart.shared / "writes.py"
    script.write_text(WRITES)
    run = apart.submit(train={"script": str(script), "args": ["{run_dir}"]})
    run.succeed()
    run.see_nothing_left()
    left = [on_host(apart, node.name, run.path) for node in apart.bed.nodes]
    assert left == [{"rank-0", "rank-1"}, {"rank-2", "rank-3"}]


def test_a_disk_said_to_be_shared_that_is_not_is_an_error(apart: Site) -> None:
    run = apart.submit(cluster={"shared_disk": True})
    verdict = run.wait()
    assert verdict["state"] == "FAILED"
    assert all("does not see the run directory" in host["message"] for host in verdict["hosts"]), run.story()
    assert all(on_host(apart, node.name, run.path) == set() for node in apart.bed.nodes)
    run.see_nothing_left()


def make_project(folder: Path) -> Path:
    """Make a git work tree: a script, a changed tracked file, and one that git does not know."""
    folder.mkdir()
    shutil.copy(RANK_SCRIPT, folder / "train.py")
    (folder / "it's data $x.txt").write_text("old")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    (folder / "it's data $x.txt").write_text("new")
    (folder / "huge.bin").write_text("not tracked")
    return folder


def test_a_snapshot_of_the_workdir_runs_on_hosts_that_do_not_see_it(apart: Site) -> None:
    project = make_project(apart.folder / "project")
    train = {"workdir": str(project), "script": "train.py", "args": ["--until", str(apart.gate)]}
    refused = apart.submit("refused", train=train)
    assert "set train.snapshot: true" in refused.wait()["summary"], refused.story()
    run = apart.submit("sent", train=train | {"snapshot": True})
    run.wait_for_ranks()
    assert on_host(apart, "node2", run.path / "workdir") == {"train.py", "it's data $x.txt"}
    shown = apart.bed.node("node2").run(["cat", str(run.path / "workdir/it's data $x.txt")])
    assert shown.stdout == "new"
    (project / "train.py").write_text("raise SystemExit('changed after submit')")
    apart.gate.touch()
    run.succeed()
    assert {facts["cwd"] for facts in run.reports().values()} == {str(run.path / "workdir")}
    run.see_nothing_left()


def test_a_second_attempt_is_sent_too(apart: Site) -> None:
    marker = apart.shared / "collided"
    run = apart.submit(train={"args": ["--bind-master-port-once", str(marker)]})
    run.succeed()
    assert len(run.events("retry")) == 1
    assert run.log("node1.rank0.out", attempt=2).startswith("REPORT")
    assert "Address already in use" in run.log("node1.rank0.err", attempt=1)
    run.see_nothing_left()
