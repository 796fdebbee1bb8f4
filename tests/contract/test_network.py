"""Cables that are pulled: a short cut harms nothing, a long one ends what cannot be reached any more."""

from __future__ import annotations

import time

import pytest

from tests.contract.product import Run, Site, wait_until


def submit_sleeping(site: Site) -> Run:
    """Submit a run with a short lease that goes on for minutes, and wait until its ranks run."""
    run = site.submit(lease=8, train={"args": ["--sleep", "300", "--children", "4"]})
    run.wait_for_ranks()
    return run


def test_a_host_cut_off_for_longer_than_the_lease_is_named_and_ends_by_itself(remote: Site) -> None:
    node1, node2 = remote.bed.nodes
    run = submit_sleeping(remote)
    with remote.pulled(node2):
        verdict = run.wait()
        first = verdict["first_failure"]
        assert (verdict["state"], first["host"], first["rank"]) == ("FAILED", "node2", None), run.story()
        assert "lost" in first["message"]
        wait_until(lambda: not node1.processes(run.run_id), lambda: node1.processes(run.run_id))
        wait_until(lambda: not node2.processes(run.run_id), lambda: node2.processes(run.run_id))
        run_out = (run.path / "attempt-1/logs/node2.log").read_text()
        assert "out of reach longer than the lease" in run_out
    assert [run.note(rank, "sigterm") is None for rank in range(4)] == [False] * 4
    run.see_nothing_left()


def test_all_hosts_end_by_themselves_when_the_submit_host_is_cut_off(remote: Site) -> None:
    run = submit_sleeping(remote)
    with remote.pulled(remote.bed):
        verdict = run.wait()
        assert verdict["state"] == "FAILED"
        assert {host["state"] for host in verdict["hosts"]} == {"failed"}
        assert "lost" in verdict["hosts"][0]["message"]
        for node in remote.bed.nodes:
            wait_until(lambda node=node: not node.processes(run.run_id), node.processes)
    assert [run.note(rank, "sigterm") is None for rank in range(4)] == [False] * 4
    run.see_nothing_left()


@pytest.mark.parametrize("where", ["host", "submit"])
def test_five_seconds_without_a_cable_harm_nothing(apart: Site, where: str) -> None:
    words = ["--lines", "80", "--line-delay", "0.1", "--tail", "the end"]
    run = apart.submit(lease=60, train={"args": words})
    run.wait_for_ranks()
    with apart.pulled(apart.bed if where == "submit" else apart.bed.node("node2")):
        time.sleep(5)
    run.succeed()
    for rank in range(4):
        stem = f"node{1 + rank // 2}.rank{rank}"
        lines = run.log(f"{stem}.out").split("\n", 1)[1]
        assert lines == "".join(f"out rank {rank} line {number}\n" for number in range(80)) + "the end"
        assert run.log(f"{stem}.err") == "".join(f"err rank {rank} line {number}\n" for number in range(80))
    run.see_nothing_left()
