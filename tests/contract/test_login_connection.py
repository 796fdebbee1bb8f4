"""The one connection to a login host: kept, lost, made again, and how it lets its user in."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.contract.laptop import held
from tests.contract.product import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.laptop import Laptop

pytest.importorskip("paramiko")


# -- the connection


def test_a_lost_connection_is_told_and_made_again(laptop: Laptop) -> None:
    told = laptop.submit()
    node = laptop.bed.node("node1")
    node.stop_sshd(sessions=True)
    try:
        done = laptop.orchestrate("status", told["run_id"])
        assert done.returncode == 3
        assert "port 22" in done.stderr
        listed = json.loads(laptop.orchestrate("list", "--json").stdout)
        assert [run["run_id"] for run in listed] == [told["run_id"]]
    finally:
        node.start_sshd()
    laptop.submit("again")
    node.stop_sshd(sessions=True)
    node.start_sshd()
    done = laptop.orchestrate("status", told["run_id"])
    assert done.returncode == 0
    assert "the connection to node1 was lost" in done.stderr


def gate(laptop: Laptop, number: int) -> tuple[Path, Path, str]:
    """Return a gate's file, one that says it was reached, and a setup line: command `number` waits there.

    It has reached it with its request at hand, which comes once it is known here that it was started.
    """
    shut, reached, count = (laptop.bed.directory / f"{laptop.folder.name}.{n}" for n in ("shut", "at", "n"))
    shut.touch()
    line = (
        f'echo x >> "{count}"; if [ "$(wc -l < "{count}")" -eq {number} ]; then '
        f'until read -t 0; do sleep 0.05; done; touch "{reached}"; '
        f'while [ -e "{shut}" ]; do sleep 0.05; done; fi'
    )
    return shut, reached, line


def test_a_submit_that_loses_its_connection_starts_one_run(laptop: Laptop) -> None:
    laptop.submit("warm")
    before = laptop.runs()
    shut, reached, line = gate(laptop, 2)
    process = laptop.start("submit", str(laptop.job(cluster={"login": {"setup": [line]}})), "--json")
    wait_until(reached.exists, lambda: "the submit there")
    laptop.cut()
    out, errors = process.communicate(timeout=PATIENCE)
    shut.unlink()  # the first try, which has its request already, goes on now
    assert process.returncode == 0, errors
    assert "trying again" in errors
    assert laptop.wait(json.loads(out)["run_id"])["state"] == "SUCCEEDED"
    wait_until(lambda: not held(laptop, "login.far"), lambda: held(laptop, "login.far"))
    assert laptop.runs() - before == {json.loads(out)["run_id"]}


def test_a_submit_that_was_killed_is_found_by_the_next(laptop: Laptop) -> None:
    laptop.submit("warm")
    before = laptop.runs()
    shut, reached, line = gate(laptop, 2)
    job = laptop.job(cluster={"login": {"setup": [line]}})
    process = laptop.start("submit", str(job), "--json")
    wait_until(reached.exists, lambda: "the submit there")
    process.kill()
    process.communicate()
    (waiting,) = [
        run for run in json.loads(laptop.orchestrate("list", "--json").stdout) if not run["run_dir"]
    ]
    assert "interrupted" in waiting["reason"]
    shut.unlink()
    wait_until(lambda: laptop.runs() - before, lambda: "a run")
    wait_until(lambda: not held(laptop, "login.far"), lambda: held(laptop, "login.far"))
    done = laptop.orchestrate("submit", str(job), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["run_id"], told["found"]) == (waiting["run_id"], True)
    assert laptop.runs() - before == {told["run_id"]}


def test_an_interrupted_submit_that_started_nothing_is_settled(laptop: Laptop) -> None:
    laptop.submit("warm")
    shut, reached, line = gate(laptop, 1)
    process = laptop.start("submit", str(laptop.job(cluster={"login": {"setup": [line]}})), "--json")
    wait_until(reached.exists, lambda: "the push there")
    process.kill()
    process.communicate()
    shut.unlink()
    (waiting,) = [
        run for run in json.loads(laptop.orchestrate("list", "--json").stdout) if not run["run_dir"]
    ]
    done = laptop.orchestrate("status", waiting["run_id"])
    assert done.returncode == 2
    assert "interrupted before it was started" in done.stderr
    assert len(json.loads(laptop.orchestrate("list", "--json").stdout)) == 1


def test_nothing_secret_is_in_an_argument(laptop: Laptop) -> None:
    laptop.environ["TOKEN"] = "s3cret-" + laptop.folder.name
    shut, _, line = gate(laptop, 10**6)
    shut.unlink()
    seen = laptop.bed.directory / f"{laptop.folder.name}.ps"
    spy = f'ps axww -o args >> "{seen}"'
    told = laptop.submit(
        train={"secrets": ["TOKEN"], "args": ["300"]}, cluster={"login": {"setup": [line, spy]}}
    )
    laptop.orchestrate("status", told["run_id"])
    assert "login.holder" in seen.read_text()
    assert laptop.environ["TOKEN"] not in seen.read_text()
    holding = set(files_with(laptop.environ["TOKEN"].encode(), laptop.home))
    assert {name for name, _ in holding} <= {"secrets.env", "host-0.rank0.out", "host-0.rank1.out"}
    assert {mode for name, mode in holding if name == "secrets.env"} == {0o600}
    laptop.orchestrate("cancel", told["run_id"])


def files_with(text: bytes, folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and mode of the files that hold a text; a running job's may go at any moment."""
    for top, _, names in os.walk(folder):
        for path in (Path(top, name) for name in names):
            with contextlib.suppress(OSError):
                if text in path.read_bytes():
                    yield path.name, path.stat().st_mode & 0o777


def test_the_kept_connection_is_shown_and_ended(laptop: Laptop) -> None:
    job = str(laptop.job())
    assert laptop.orchestrate("login", job).stdout == "connected to node1\n"
    shown = laptop.orchestrate("login", "--status")
    assert "connected to root@" in shown.stdout
    assert re.search("2[34][0-9] min", shown.stdout)
    assert laptop.orchestrate("login", "node1", "--close").returncode == 0
    assert laptop.orchestrate("login", "--status").returncode == 1
    folder = laptop.runtime / "orchestrate"
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())} == {0o700}


def test_an_idle_connection_ends_by_itself(laptop: Laptop) -> None:
    job = str(laptop.job(cluster={"login": {"idle": 1}}))
    laptop.orchestrate("login", job)
    wait_until(lambda: laptop.orchestrate("login", "--status").returncode == 1, lambda: "its end")
    done = laptop.orchestrate("login", job)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_agents_key_is_enough(laptop: Laptop) -> None:
    agent = laptop.folder / "agent"
    started = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        laptop.environ["SSH_AUTH_SOCK"] = str(agent)
        add = ["ssh-add", "-q", str(laptop.bed.client.key)]
        environ = os.environ | laptop.environ
        wait_until(lambda: not subprocess.run(add, env=environ, check=False).returncode, lambda: "the agent")
        config = laptop.folder / "ssh_config"
        config.write_text(f"IdentityFile none\nUserKnownHostsFile {laptop.bed.client.known_hosts}\n")
        login = {"host": f"root@{laptop.bed.node('node1').outer_address}", "config": str(config)}
        done = laptop.orchestrate("login", str(laptop.job(cluster={"login": login})))
        assert done.returncode == 0, done.stderr
    finally:
        started.kill()
        started.wait()


# -- a second factor


PAM = """
auth required pam_exec.so quiet expose_authtok {script}
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
"""


@pytest.fixture
def second_factor(laptop: Laptop) -> Iterator[int]:
    """Let node1 ask for a key and, through PAM, for a code; return the port of that sshd."""
    node, folder = laptop.bed.node("node1"), laptop.bed.directory
    script, pam, config = folder / "check-code", folder / "pam-sshd", folder / "sshd_2fa"
    script.write_text("#!/bin/sh\n[ \"$(tr -d '\\000')\" = 271828 ]\n")
    script.chmod(0o755)
    pam.write_text(PAM.format(script=script))
    changed = {
        "UsePAM no": "UsePAM yes",
        "KbdInteractiveAuthentication no": "KbdInteractiveAuthentication yes",
    }
    text = node.sshd_config.read_text()
    for old, new in changed.items():
        text = text.replace(old, new)
    text = text.replace("Port 22\n", "Port 2299\n")
    text += "PermitRootLogin yes\nAuthenticationMethods publickey,keyboard-interactive:pam\n"
    config.write_text(text.replace("PermitRootLogin prohibit-password\n", ""))
    assert node.run(["mount", "--bind", str(pam), "/etc/pam.d/sshd"]).returncode == 0
    log = folder / "sshd_2fa.log"
    daemon = subprocess.Popen(node.command(["/usr/sbin/sshd", "-D", "-f", str(config), "-E", str(log)]))
    wait_until(lambda: log.exists() and "Server listening" in log.read_text(), lambda: "sshd")
    yield 2299
    daemon.kill()
    daemon.wait()
    node.run(["umount", "/etc/pam.d/sshd"])


def at_terminal(laptop: Laptop, answers: list[str], *words: str) -> tuple[int, str]:
    """Give a command at a terminal of its own; type the answers at its prompts; return code and screen."""
    ours, theirs = pty.openpty()
    before = ["setsid", "--ctty", "--wait"]
    process = laptop.start(*words, before=before, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    screen = b""
    while select.select([ours], [], [], PATIENCE)[0]:
        try:
            data = os.read(ours, 4096)
        except OSError:
            break
        screen += data
        if screen.rstrip().endswith(b"assword:") and answers:
            time.sleep(0.2)  # getpass discards what was typed before it turned the echo off
            os.write(ours, answers.pop(0).encode() + b"\n")
            screen += b"(typed)\n"  # else the line break that getpass prints looks like another prompt
    os.close(ours)  # which ends a command that still waits
    return process.wait(), screen.decode()


def test_a_second_factor_is_asked_for_once(laptop: Laptop, second_factor: int) -> None:
    login = laptop.login(host=f"root@{laptop.bed.node('node1').outer_address}:{second_factor}")
    login["known_hosts"] = str(laptop.folder / "known")
    login["accept_new_host_keys"] = True
    job = str(laptop.job(cluster={"login": login}))
    alone = laptop.start("submit", job, start_new_session=True)  # the tests may have a terminal
    _, errors = alone.communicate(timeout=PATIENCE)
    assert alone.returncode == 3
    assert "and there is no terminal to ask at" in errors
    code, screen = at_terminal(laptop, ["000000", "271828"], "submit", job)
    assert code == 0, screen
    assert screen.count("assword:") == 2
    assert "271828" not in screen
    done = laptop.orchestrate("status", "last")
    assert done.returncode == 0, done.stderr
    assert laptop.orchestrate("login", "--close").returncode == 0
