"""The testbed itself: its hosts are real, apart from each other, and gone afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.testbed import Testbed, TestbedError, network, processes

if TYPE_CHECKING:
    from collections.abc import Callable

PING = "import socket, sys; socket.create_connection((sys.argv[1], 22), 10).close()"


def reaches(bed: Testbed, source: str, target: str) -> bool:
    """Say whether a TCP connection to the target's sshd can be opened from the source."""
    argv = ["/usr/bin/python3", "-c", PING, target]
    return bed.node(source).run(argv).returncode == 0


def comes_back(bed: Testbed, name: str) -> None:
    """Wait until a host answers again: after a cut, a neighbour counts as gone for a while."""
    deadline = time.monotonic() + 180
    while (done := bed.ssh(name, "hostname")).stdout != f"{name}\n":
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.1)


def test_ssh_reaches_every_host_by_its_verified_key(bed: Testbed) -> None:
    for node in bed.nodes:
        done = bed.ssh(node.name, "hostname")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{node.name}\n", "")


def test_ssh_refuses_a_host_with_another_key(bed: Testbed, tmp_path: Path) -> None:
    first, second = bed.client.known_hosts.read_text().splitlines()
    names, other = first.split()[0], second.split()[1:]
    swapped = tmp_path / "known_hosts"
    swapped.write_text(" ".join([names, *other]) + "\n")
    argv = ["ssh", "-F", str(bed.ssh_config), "-o", f"UserKnownHostsFile={swapped}", "node1", "hostname"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_pdsh_reaches_every_host(bed: Testbed) -> None:
    argv = ["pdsh", "-w", "node1,node2", "hostname"]
    env = os.environ | bed.pdsh_env()
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert sorted(done.stdout.splitlines()) == ["node1: node1", "node2: node2"]


def test_a_host_knows_others_by_address_and_itself_by_loopback(bed: Testbed) -> None:
    lines = bed.node("node1").run(["cat", "/etc/hosts"]).stdout.splitlines()
    assert "127.0.1.1 node1" in lines
    assert f"{bed.node('node2').address} node2" in lines
    assert reaches(bed, "node1", "node2")
    assert reaches(bed, "node2", bed.node("node1").address6 if network.has_ipv6() else "node1")


def test_a_pulled_cable_cuts_one_host_off_until_it_is_plugged(bed: Testbed) -> None:
    node = bed.node("node1")
    node.pull_cable()
    try:
        assert not reaches(bed, "node2", node.address)
        done = bed.ssh("-oConnectTimeout=1", "node1", "hostname")
        assert done.returncode == 255
        assert bed.ssh("node2", "hostname").stdout == "node2\n"
    finally:
        node.plug_cable()
    comes_back(bed, "node1")


def test_the_submit_side_can_be_cut_off_while_hosts_still_talk(bed: Testbed) -> None:
    bed.pull_cable()
    try:
        assert bed.ssh("-oConnectTimeout=1", "node1", "hostname").returncode == 255
        assert reaches(bed, "node1", "node2")
    finally:
        bed.plug_cable()
    comes_back(bed, "node1")


def test_a_slowed_link_is_limited_both_ways_and_freed_again(bed: Testbed) -> None:
    node = bed.node("node1")
    show = ["tc", "qdisc", "show", "dev", "eth0"]
    switch = ["tc", "-n", bed.network.name, "qdisc", "show", "dev", "p1"]
    node.slow("1mbit")
    try:
        assert "tbf" in node.run(show).stdout
        assert "rate 1Mbit" in subprocess.run(switch, capture_output=True, text=True, check=True).stdout
    finally:
        node.unslow()
    assert "tbf" not in node.run(show).stdout
    assert "tbf" not in subprocess.run(switch, capture_output=True, text=True, check=True).stdout


def test_processes_of_a_host_are_found_and_counted_to_it(bed: Testbed) -> None:
    marker = f"marker-{uuid.uuid4()}"
    # The first line comes from the process itself, so it runs under its own name when ssh returns.
    orphan = f"MARK={marker} setsid sh -c 'echo up; exec >/dev/null 2>&1; sleep 60; :' &"
    assert bed.ssh("node2", orphan).stdout == "up\n"
    found = bed.node("node2").processes(marker)
    assert {p.argv[0] for p in found} <= {"sh", "sleep", ""}  # "": in the middle of an exec
    assert found
    assert bed.node("node1").processes(marker) == []
    assert {p.pid for p in found} <= {p.pid for p in bed.stray_processes(marker)}
    processes.end_all(lambda: bed.stray_processes(marker))
    assert bed.stray_processes(marker) == []


def test_an_ordinary_user_can_log_in_and_submit(bed: Testbed) -> None:
    assert bed.user_client is not None
    login = ["ssh", "-F", str(bed.user_client.config), "node1", "id -un; echo $HOME; test -w /etc || echo no"]
    line = bed.submit_command(login)
    done = subprocess.run(line, env=bed.submit_env(), capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["orchtest", str(bed.users["orchtest"].home), "no"], done.stderr
    line = bed.submit_command([sys.executable, "-c", "import os, pathlib, orchestrator; print(os.getuid())"])
    done = subprocess.run(line, env=bed.submit_env(), capture_output=True, text=True, check=False)
    assert done.stdout == f"{bed.users['orchtest'].uid}\n", done.stderr


def test_a_private_folder_is_empty_and_each_hosts_own(
    make_bed: Callable[..., Testbed], tmp_path: Path
) -> None:
    (tmp_path / "shared").write_text("of the machine")
    bed = make_bed(private_dirs=(str(tmp_path),))
    assert bed.ssh("node1", f"touch {tmp_path}/mine; ls {tmp_path}").stdout == "mine\n"
    assert bed.ssh("node2", f"ls {tmp_path}").stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_a_bed_with_a_jump_host_a_banner_noise_and_a_port(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed(jump=True, banner=True, chatty=True, ports={2: 2222})
    done = bed.ssh("node2", "hostname; echo $SSH_CONNECTION")
    *noise, name, connection = done.stdout.splitlines()
    assert name == "node2"
    assert connection.split()[0] == bed.node("node1").address
    assert connection.split()[3] == "2222"
    assert noise == ["Welcome to the cluster: scratch is 93 % full"]
    assert "Authorised use only" in done.stderr
    assert "module: command not found" in done.stderr
    direct = bed.ssh("-oProxyJump=none", "-oConnectTimeout=1", "node2", "hostname")
    assert direct.returncode == 255


def test_a_host_without_sshd_refuses_and_a_crashed_one_is_silent(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed()
    node1, node2 = bed.nodes
    node1.stop_sshd()
    assert "Connection refused" in bed.ssh("node1", "hostname").stderr
    node1.start_sshd()
    assert bed.ssh("node1", "hostname").stdout == "node1\n"
    bed.ssh("node2", "setsid sleep 60 >/dev/null 2>&1 </dev/null &")
    node2.crash()
    assert node2.processes() == []
    assert bed.ssh("-oConnectTimeout=1", "node2", "hostname").returncode == 255


def test_nothing_is_left_of_a_closed_bed(make_bed: Callable[..., Testbed]) -> None:
    bed = make_bed(jump=True)
    bed.ssh("node2", "setsid sleep 60 >/dev/null 2>&1 </dev/null &")
    names = network.namespaces(bed.network)
    assert len(names) == 3
    with network.held(names) as inodes:
        assert len(processes.in_namespaces(inodes)) >= 5  # two anchors, two sshd, one sleep
        bed.close()
        assert processes.in_namespaces(inodes) == []
    assert network.namespaces(bed.network) == []
    assert not Path(f"/sys/class/net/{bed.network.name}").exists()
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert not re.search(rf"\b10\.7[78]\.{bed.network.number}\.", routes)
    assert not bed.directory.exists()


def test_a_bed_whose_process_was_killed_is_swept_by_the_next(
    make_bed: Callable[..., Testbed], tmp_path: Path
) -> None:
    script = (
        "import os, pathlib, signal; from tests.testbed import Testbed\n"
        f"bed = Testbed.up(nodes=1, base=pathlib.Path({str(tmp_path)!r}))\n"
        "print(bed.network.name, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    name = died.stdout.strip()
    (tmp_path / name / "marked").touch()
    inside = ["ip", "-n", f"{name}-1", "link"]  # another worker's bed may take the name once it is free
    subprocess.run([*inside, "add", "marked", "type", "veth"], check=True)
    make_bed(nodes=1, base=tmp_path)
    assert subprocess.run([*inside, "show", "marked"], capture_output=True, check=False).returncode != 0
    assert not (tmp_path / name / "marked").exists()


def test_a_bed_that_fails_to_come_up_leaves_nothing(
    make_bed: Callable[..., Testbed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: list[network.Network] = []
    real_claim = network.claim

    def noted_claim(size: int, *, jump: bool) -> network.Network:
        claimed.append(real_claim(size, jump=jump))
        return claimed[0]

    monkeypatch.setattr(network, "claim", noted_claim)
    with pytest.raises(TestbedError, match="can't be private"):
        make_bed(base=tmp_path / "beds", private_dirs=(str(tmp_path),))
    assert network.namespaces(claimed[0]) == []
    assert not Path(f"/sys/class/net/{claimed[0].name}").exists()
    assert list((tmp_path / "beds").iterdir()) == []


def test_the_command_brings_a_bed_up_for_a_person(make_bed: Callable[..., Testbed], tmp_path: Path) -> None:
    def testbed(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tests.testbed", "--dir", str(tmp_path / "beds"), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    up = testbed("up", "--nodes", "2", "--slots", "4")
    try:
        assert "control_address: 10.77." in up.stdout, up.stderr
        (status,) = json.loads(testbed("status", "--json").stdout)
        assert [(host["name"], host["up"]) for host in status["hosts"]] == [("node1", True), ("node2", True)]
        make_bed(nodes=1, base=tmp_path / "beds").close()  # whose sweep spares a bed that is to be kept
        assert testbed("shell", "node2", "hostname").stdout == "node2\n"
        assert testbed("cable", "node2", "pull").returncode == 0
        assert "no host 'node7'" in testbed("shell", "node7").stderr
    finally:
        down = testbed("down")
    assert down.stdout == f"{status['bed']} is down\n"
    assert not (network.NAMESPACES / status["bed"]).exists()
