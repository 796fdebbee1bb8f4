from __future__ import annotations

import pytest

from orchestrator.supervisor import route
from orchestrator.supervisor.host_state import HostState
from tests import samples

ADDRESSES = [
    ["10.0.0.1", "eth0"],
    ["127.0.1.1", "lo"],
    ["192.168.0.1", "ib0"],
    ["::1", "lo"],
    ["fd00::1", "ib0"],
]


def master(addresses: list[list[str]]) -> HostState:
    return HostState(samples.plan().hosts[0], ready={"addresses": addresses})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["10.0.0.1", "192.168.0.1", "fd00::1"]),
        ({"interface": "ib0"}, ["192.168.0.1", "fd00::1"]),
        ({"interface": "gone"}, ["10.0.0.1", "192.168.0.1", "fd00::1"]),
        ({"master_addr": "master.example"}, ["master.example"]),
        ({"master_addr": "127.0.0.1", "interface": "ib0"}, ["127.0.0.1"]),
    ],
)
def test_the_users_word_comes_first_and_loopback_never(changes, expected):
    assert route.candidates(samples.plan(backend="ssh", **changes), master(ADDRESSES)) == expected


def test_a_host_that_has_said_nothing_or_has_only_loopback_offers_no_address():
    plan = samples.plan(backend="ssh")
    assert route.candidates(plan, HostState(plan.hosts[0])) == []
    assert route.candidates(plan, master([["127.0.0.1", "lo"], ["::1", "lo"]])) == []
    assert route.candidates(plan, master([["10.0.0.1", "eth0"], ["10.0.0.1", "eth1"]])) == ["10.0.0.1"]


def test_a_run_that_leaves_no_machine_meets_on_loopback():
    local = route.loopback(samples.plan(), 29500)
    assert local == route.Route("127.0.0.1", 29500, {"node1": "lo", "node2": "lo"})
    one = route.loopback(samples.plan(samples.pool("a slots=4"), backend="pdsh"), 1)
    assert one == route.Route("127.0.0.1", 1, {"a": "lo"})
    assert route.loopback(samples.plan(backend="pdsh"), 29500) is None
    theirs = route.loopback(samples.plan(master_addr="::1", interface="dummy0"), 1)
    assert theirs == route.Route("::1", 1, {"node1": "dummy0", "node2": "dummy0"})


def test_the_start_message_is_all_an_agent_needs():
    plan = samples.plan(samples.pool("a slots=1\nb slots=3\n"), backend="ssh")
    found = route.Route("10.0.0.1", 29500, {"a": "eth0", "b": "eno1"})
    assert route.start_message(plan, HostState(plan.hosts[1]), found) == {
        "t": "start",
        "run_id": "job-abcd",
        "node_rank": 1,
        "nnodes": 2,
        "first_rank": 1,
        "local_world_size": 3,
        "world_size": 4,
        "master_addr": "10.0.0.1",
        "master_port": 29500,
        "interface": "eno1",
        "simulated": False,
    }


def test_the_users_interface_goes_before_the_one_found():
    plan = samples.plan(interface="ib0")
    message = route.start_message(plan, HostState(plan.hosts[0]), route.Route("a", 1, {"node1": "eth0"}))
    assert (message["interface"], message["simulated"]) == ("ib0", True)
