"""What ssh says when a host cannot be reached, as captured, and how a launcher's log is taken apart."""

from __future__ import annotations

import pytest

from orchestrator.launchers.pdsh import labels
from orchestrator.preflight.words import classify, split_log, told_by

# OpenSSH 9.2 (through pdsh) and paramiko 5.1.
SAID = {
    "host key changed": [
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.",
        "root@10.77.1.2 port 22: Host key verification failed: the key has changed",
    ],
    "host key unknown": [
        "No ED25519 host key is known for node2, strict checking.\nHost key verification failed.",
        "root@10.77.1.2 port 22: Host key verification failed: no key of it is in known_hosts; connect once",
    ],
    "login refused": [
        "root@10.77.1.2: Permission denied (publickey).",
        "root@10.77.1.2 port 22: Permission denied: Authentication failed.",
    ],
    "name unknown": [
        "ssh: Could not resolve hostname nowhere.invalid: Name or service not known",
        "root@nowhere.invalid port 22: Name or service not known",
        "root@nowhere.invalid port 22: No address associated with hostname",
        "ssh: Could not resolve hostname n: Temporary failure in name resolution",
    ],
    "no sshd": ["ssh: connect to host 10.77.1.2 port 22: Connection refused"],
    "no route": ["ssh: connect to host 10.77.1.2 port 22: No route to host"],
    "timeout": [
        "ssh: connect to host 10.77.1.2 port 22: Connection timed out",
        "root@10.77.1.2 port 22: timed out",
    ],
    "connection closed": [
        "kex_exchange_identification: read: Connection reset by peer",
        "root@10.77.1.2 port 22: Error reading SSH protocol banner",
    ],
    "unreachable": ["something nobody has seen yet"],
}


@pytest.mark.parametrize(("kind", "words"), [(kind, words) for kind, all_ in SAID.items() for words in all_])
def test_the_words_of_ssh_are_understood(kind, words):
    found = classify(words)
    assert found.kind == kind
    assert found.fix


def test_a_log_is_taken_apart_by_host():
    log = """\
node1: Welcome: today is Monday
node1: ORCH-CHECK {"probe":"a"}
node2:
node20: not one of ours
pdsh's own words
node2: pdsh@submit: node2: ssh exited with exit code 255
node2: Permission denied (publickey).
"""
    assert split_log(log, {"node1", "node2"}) == {
        "node1": ["Welcome: today is Monday", 'ORCH-CHECK {"probe":"a"}'],
        "node2": ["", "Permission denied (publickey)."],
    }


def test_the_word_to_the_user_goes_before_the_last_lines():
    lines = [
        "noise",
        "@orchestrate line 2 of train.setup ended with 1: x",
        'ORCH-CHECK {"probe":"a"}',
        "more",
    ]
    assert told_by(lines) == "line 2 of train.setup ended with 1: x"
    assert told_by(["a", "b", "", "c", "d"]) == "b; c; d"
    assert told_by(['ORCH-CHECK {"probe":"a"}']) == ""


def test_pdsh_leaves_out_a_domain_that_all_hosts_have():
    found = labels(["node1.x", "node2.x"])
    assert found == {"node1": "node1.x", "node1.x": "node1.x", "node2": "node2.x", "node2.x": "node2.x"}
    two = labels(["a.x", "a.y", "10.0.0.1", "10.0.0.2"])
    assert "a" not in two
    assert "10" not in two
