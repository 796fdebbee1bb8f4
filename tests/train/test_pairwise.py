"""The network measured by real gloo ranks: on addresses of this machine, and on hosts with cables."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
from types import SimpleNamespace

import pytest

from orchestrator.preflight import judge_links, links
from tests.ports import free_port
from tests.programs import answers, command, write_programs

pytestmark = pytest.mark.train

QUICK = {"size": 8 << 20, "repeats": 3, "seconds": 0.5, "patience": 10.0, "start": 150.0}
# Where one host does not come: waiting for it takes all of it, so there is more only if it was too little for
# the others. Torch takes a busy machine 15 s and more, and short measurements do not tell much there.
IMPATIENT = {"patience": 4.0, "start": 30.0}
PATIENT = {"patience": 20.0, "start": 150.0, "seconds": 3.0}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return write_programs(tmp_path_factory.mktemp("programs"))


def on_loopback(count: int, **changes: object) -> list[links.Peer]:
    """Return hosts that are addresses of this machine's loopback, all on one port."""
    port = free_port()
    return [links.Peer(f"h{i}", f"127.0.0.{i + 1}", port, "lo", **changes) for i in range(count)]


def measure(programs, peers, begin=lambda name, words: words, absent=(), **options: object):
    """Run the program as every host but the absent ones; return their objects by name."""
    how = links.Measurement(secrets.token_hex(8), **{**QUICK, **options})
    requests = links.requests(peers, how)
    told: dict[str, list[dict[str, object]]] = {peer.name: [] for peer in peers}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, request in requests.items():
            if name not in absent:
                words = begin(name, command(programs, "pairwise", request))
                process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                processes[name] = stack.enter_context(process)
                stack.callback(process.kill)
        for name, process in processes.items():
            output, _ = process.communicate(timeout=400)
            told[name] = answers(output)
            assert told[name], output
    return told


def judge(told):
    hosts = [SimpleNamespace(name=name, extra=lines) for name, lines in told.items()]
    case = SimpleNamespace(hosts=hosts, spec=SimpleNamespace(hardware=None))
    found = list(judge_links.links(case))
    return {each.host: each for each in found}, judge_links.facts(case).get("links", "")


def bad(found) -> set[str]:
    """Return the hosts that were found to be bad."""
    return {name for name, each in found.items() if each.level == "bad"}


def pairs(told) -> dict[tuple[str, str], dict[str, object]]:
    return {
        (n, line["pair"]["peer"]): line["pair"]
        for n, lines in told.items()
        for line in lines
        if "pair" in line
    }


def test_all_pairs_and_then_all_hosts_measure_an_all_reduce(programs):
    told = measure(programs, on_loopback(3))
    found = pairs(told)
    assert set(found) == {(a, b) for a in told for b in told if a != b}
    for pair in found.values():
        assert (pair["how"], pair["ranks"], pair["hosts"]) == ("gloo", 2, 2)
        assert pair["bandwidth"] == pytest.approx(pair["bytes"] / pair["time"])
    together = [line["all"] for lines in told.values() for line in lines if "all" in line]
    assert [(each["ranks"], each["hosts"]) for each in together] == [(3, 3)] * 3
    assert all({"done": True, "check": "links"} in lines for lines in told.values())
    assert "3 hosts together" in judge(told)[1]


def test_all_slots_of_a_host_can_take_part(programs):
    told = measure(programs, on_loopback(2, ranks=2))
    found = pairs(told)
    assert {pair["ranks"] for pair in found.values()} == {4}
    for pair in found.values():
        assert pair["bandwidth"] == pytest.approx(1.5 * pair["bytes"] / pair["time"])


def test_a_dead_host_is_named_and_the_others_are_measured(programs):
    for how in (IMPATIENT, PATIENT):
        told = measure(programs, on_loopback(4), absent=("h2",), **how)
        found, _ = judge(told)
        together = [line["all"]["hosts"] for lines in told.values() for line in lines if "all" in line]
        if (bad(found), together) == ({"h2"}, [3, 3, 3]):
            break
    assert (bad(found), together) == ({"h2"}, [3, 3, 3]), (found, told)
    assert found["h2"].what.startswith("answered none of ")
    assert len(pairs(told)) == 6


@pytest.fixture
def no_torch(tmp_path) -> list[str]:
    """Words before a command that give it a python without torch."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")\n")
    return ["env", f"PYTHONPATH={tmp_path}"]


def test_hosts_without_torch_send_each_other_bytes(programs, no_torch):
    told = measure(programs, on_loopback(2), lambda _, words: [*no_torch, *words])
    assert {pair["how"] for pair in pairs(told).values()} == {"tcp"}
    found, facts = judge(told)
    assert set(found) == {"h0", "h1"}
    assert facts.endswith("plain TCP where there is no torch: h[0-1]")


def test_a_host_without_torch_is_measured_over_tcp_and_the_others_by_ranks(programs, no_torch):
    def start(name: str, words: list[str]) -> list[str]:
        return [*no_torch, *words] if name == "h1" else words

    told = measure(programs, on_loopback(3), start)
    assert {pair: line["how"] for pair, line in pairs(told).items() if pair[0] < pair[1]} == {
        ("h0", "h1"): "tcp",
        ("h1", "h2"): "tcp",
        ("h0", "h2"): "gloo",
    }


def test_a_port_that_is_taken_is_told_by_its_host(programs):
    peers = on_loopback(2)
    with socket.create_server((peers[1].address, peers[1].port)):
        told = measure(programs, peers, backend="tcp", **{**IMPATIENT, "start": 10.0})
    found, _ = judge(told)
    assert (found["h1"].level, found["h1"].what) == (
        "bad",
        f"could not measure: port {peers[1].port} is in use here",
    )


@pytest.fixture
def four_hosts(make_bed):
    """Hosts whose links are slower than this machine's processor, whatever else it has to do."""
    bed = make_bed(nodes=4)
    for node in bed.nodes:
        node.slow("400mbit")
    return bed


def on_bed(bed, programs, **options: object):
    """Measure on the hosts of a bed, whose programs find the interface by the address."""
    peers = [links.Peer(node.name, node.address) for node in bed.nodes]
    told = measure(programs, peers, lambda name, words: bed.node(name).command(words), **options)
    return told, judge(told)


@pytest.mark.parametrize("backend", ["gloo", "tcp"])
def test_a_throttled_host_is_named(four_hosts, programs, backend):
    four_hosts.node("node3").slow("40mbit")
    for seconds in (QUICK["seconds"], 3.0):  # longer where this machine was too busy to keep time
        told, (found, _) = on_bed(four_hosts, programs, backend=backend, seconds=seconds)
        if bad(found) == {"node3"}:
            break
    assert {pair["how"] for pair in pairs(told).values()} == {backend}
    assert bad(found) == {"node3"}, told
    assert "in 3 of its 3 pairs" in found["node3"].what
    slow = [pair["bandwidth"] for (name, peer), pair in pairs(told).items() if "node3" in (name, peer)]
    assert max(slow) < 50e6 / 8


def test_a_host_whose_cable_is_pulled_is_named(four_hosts, programs):
    four_hosts.node("node2").pull_cable()
    for how in ({**IMPATIENT, "start": 10.0}, {**PATIENT, "start": 60.0}):
        told, (found, _) = on_bed(four_hosts, programs, backend="tcp", **how)
        if bad(found) == {"node2"}:
            break
    assert bad(found) == {"node2"}, told
