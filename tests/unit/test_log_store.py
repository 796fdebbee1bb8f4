from __future__ import annotations

import json

import pytest

from orchestrator.supervisor.log_store import LogStore
from tests import samples


@pytest.fixture
def attempt(tmp_path):
    return samples.run_dir(tmp_path).attempt(1)


def host(name: str = "node1"):
    return samples.plan(samples.pool(f"{name} slots=2")).hosts[0]


@pytest.mark.parametrize(
    "name",
    [
        "../node1.log",
        "node1.log/../../x",
        "node2.log",
        "node10.log",
        "node1.rank0.json",
        "node1.logs",
        "node1.rank1.rank0.out",
        "node1.rankx.out",
        "node1.rank2.out",
        "",
        "/etc/passwd",
        "node1.rank0.out\n",
    ],
)
def test_a_host_writes_its_own_logs_and_nothing_else(attempt, name):
    assert LogStore(attempt).write(host(), {"file": name, "offset": 0}, b"x") is None
    assert list(attempt.logs.iterdir()) == []
    assert LogStore(attempt).sizes(host()) == {}


@pytest.mark.parametrize(
    "name", ["node1.log", "node1.times", "node1.samples", "node1.rank0.out", "node1.rank1.err"]
)
def test_a_hosts_own_logs_are_kept(attempt, name):
    assert LogStore(attempt).write(host(), {"file": name, "offset": 0}, b"abc") == 3
    assert LogStore(attempt).sizes(host()) == {name: 3}


def test_logs_of_a_host_in_france_are_no_flight_recorders(attempt):
    store, french = LogStore(attempt), host("gpu1.lab.fr")
    for name in ("gpu1.lab.fr.rank0.out", "gpu1.lab.fr.log", "gpu1.lab.fr.rank0.fr.0"):
        assert store.write(french, {"file": name, "offset": 0}, b"abc") == 3
    assert {path.name for path in attempt.logs.iterdir()} == {"gpu1.lab.fr.rank0.out", "gpu1.lab.fr.log"}
    assert [path.name for path in attempt.dumps.iterdir()] == ["gpu1.lab.fr.rank0.fr.0"]


def test_a_name_that_begins_like_another_is_another_hosts(attempt):
    """A host may be called `a.rank1`, beside a host `a`."""
    store = LogStore(attempt)
    assert store.write(host("a.rank1"), {"file": "a.rank1.rank0.out", "offset": 0}, b"x") == 1
    assert store.sizes(host("a")) == {}
    assert store.write(host("a"), {"file": "a.rank1.rank0.out", "offset": 0}, b"y") is None


def test_a_piece_beyond_the_end_waits_for_the_bytes_before_it(attempt):
    store = LogStore(attempt)
    assert store.write(host(), {"file": "node1.log", "offset": 5}, b"x") is None
    assert store.write(host(), {"file": "node1.log", "offset": 0}, b"12345") == 5
    assert store.write(host(), {"file": "node1.log", "offset": 5}, b"6") == 6
    assert (attempt.logs / "node1.log").read_bytes() == b"123456"


def test_what_cannot_be_written_is_not_acknowledged(attempt):
    attempt.logs.rmdir()
    assert LogStore(attempt).write(host(), {"file": "node1.log", "offset": 0}, b"x") is None


def test_the_record_of_a_rank_is_kept_once(attempt):
    store, odd = LogStore(attempt), host("fd00::1")
    store.write_record(odd, {"rank": 1, "event": "start"})
    assert list(attempt.errors.iterdir()) == []
    store.write_record(odd, {"rank": 1, "event": "exit", "exit_code": 3})
    store.write_record(odd, {"rank": 1, "event": "exit", "exit_code": 4})
    assert json.loads((attempt.errors / "fd00%3A%3A1.rank1.json").read_text())["exit_code"] == 3
