"""Hosts that are hard to reach, and how ssh's own words get to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.product import Site


def known_hosts(site: Site, lines: list[str]) -> Path:
    """Write a known_hosts file for one test."""
    path = site.folder / "known hosts"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_a_host_that_refuses_is_told_in_the_words_of_ssh(remote: Site) -> None:
    node2 = remote.bed.node("node2")
    node2.stop_sshd()
    try:
        run = remote.submit(train={"args": ["--sleep", "300"]})
        verdict = run.wait()
    finally:
        node2.start_sshd()
    first = verdict["first_failure"]
    assert (verdict["state"], first["host"]) == ("FAILED", "node2"), run.story()
    assert "Connection refused" in first["message"]
    assert "Connection refused" in verdict["summary"]
    assert run.reports() == {}
    run.see_nothing_left()


def test_a_host_that_does_not_answer_is_told_after_the_connect_timeout(remote: Site) -> None:
    with remote.pulled(remote.bed.node("node2")):
        run = remote.submit(cluster={"ssh": {"connect_timeout": 8}})
        verdict = run.wait()
    assert (verdict["state"], verdict["first_failure"]["host"]) == ("FAILED", "node2"), run.story()
    told = verdict["first_failure"]["message"].lower()
    assert "timed out" in told or "no route to host" in told
    run.see_nothing_left()


def test_unknown_host_keys_are_refused_until_the_user_accepts_new_ones(remote: Site) -> None:
    first, _ = remote.bed.client.known_hosts.read_text().splitlines()
    path = known_hosts(remote, [first])
    run = remote.submit("refused", cluster={"ssh": {"known_hosts": str(path)}})
    verdict = run.wait()
    assert (verdict["state"], verdict["first_failure"]["host"]) == ("FAILED", "node2"), run.story()
    assert "Host key verification failed" in verdict["first_failure"]["message"]
    run.see_nothing_left()
    ssh = {"known_hosts": str(path), "accept_new_host_keys": True}
    accepted = remote.submit("accepted", cluster={"ssh": ssh})
    accepted.succeed()
    assert len(path.read_text().splitlines()) == 2


def test_a_changed_host_key_is_refused_whatever_the_user_accepts(remote: Site) -> None:
    first, second = (line.split() for line in remote.bed.client.known_hosts.read_text().splitlines())
    path = known_hosts(remote, [" ".join(first), " ".join([second[0], *first[1:]])])
    ssh = {"known_hosts": str(path), "accept_new_host_keys": True}
    run = remote.submit(cluster={"ssh": ssh})
    verdict = run.wait()
    assert (verdict["state"], verdict["first_failure"]["host"]) == ("FAILED", "node2"), run.story()
    assert "has changed" in run.log_of_launcher().lower()
    run.see_nothing_left()


def test_a_banner_a_chatty_shell_odd_ports_and_a_jump_host_change_nothing(difficult: Site) -> None:
    run = difficult.submit(train={"args": ["--lines", "1"]})
    run.succeed()
    assert {facts["host"] for facts in run.reports().values()} == {"node1", "node2"}
    inner = difficult.bed.node("node1").address
    assert {facts["env"]["MASTER_ADDR"] for facts in run.reports().values()} == {inner}
    run.see_nothing_left()


def test_a_jump_host_may_stand_in_the_job_file(difficult: Site) -> None:
    config = difficult.folder / "ssh_config"
    text = difficult.bed.ssh_config.read_text()
    config.write_text("\n".join(line for line in text.splitlines() if "ProxyJump" not in line))
    hostfile = difficult.folder / "hostfile"
    hostfile.write_text("node2 slots=2\n")
    ssh = {"config": str(config), "jump": "node1"}
    run = difficult.submit(cluster={"hostfile": str(hostfile), "ssh": ssh})
    run.succeed()
    assert {facts["host"] for facts in run.reports().values()} == {"node2"}
    run.see_nothing_left()


def test_a_failure_behind_a_jump_host_is_seen_as_anywhere(difficult: Site) -> None:
    run = difficult.submit(
        train={"args": ["--exit-code", "9", "--fail-rank", "3", "--after", "1", "--sleep", "60"]}
    )
    first = run.wait()["first_failure"]
    assert (first["rank"], first["host"], first["exit_code"]) == (3, "node2", 9), run.story()
    run.see_nothing_left()


def test_hosts_may_be_named_by_their_ipv6_addresses(remote: Site) -> None:
    """Torchrun meets over IPv6 too, and pdsh, which reads a `:` in a name as its own, gets another name."""
    assert remote.bed is not None
    hostfile = remote.folder / "ipv6"
    hostfile.write_text("".join(f"[{node.address6}] slots=2\n" for node in remote.bed.nodes))
    keys = {"known_hosts": str(remote.folder / "known_hosts"), "accept_new_host_keys": True}
    ssh = keys | {"identity": str(remote.bed.client.key)}
    run = remote.submit(cluster={"hostfile": str(hostfile), "ssh": ssh})
    verdict = run.succeed()
    assert [host["name"] for host in verdict["hosts"]] == [node.address6 for node in remote.bed.nodes]
    assert ":" in run.events("start")[0]["master"]
    run.see_nothing_left()
