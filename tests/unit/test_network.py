from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from orchestrator.agent import network
from tests.ports import free_port
from tests.testbed import missing


def test_the_loopback_interface_and_its_address_are_known():
    assert network.addresses()["127.0.0.1"] == "lo"


def test_addresses_are_those_that_the_kernel_lists():
    for _ in range(20):  # hosts of other tests come and go, with an interface of this machine each
        listed = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
        found = network.addresses()
        names = {name for _, name in socket.if_nameindex()}
        if set(listed) <= set(found) and set(found.values()) <= names:
            break
    assert set(listed) <= set(found)
    assert set(found.values()) <= names


def test_no_link_local_address_is_told_to_other_hosts():
    assert not [address for address in network.addresses() if address.startswith("fe80")]


@pytest.mark.parametrize(
    ("address", "back"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),  # what Debian writes beside the host's name
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("node1", False),
    ],
)
def test_an_address_that_leads_back_to_oneself(address, back):
    assert network.is_loopback(address) == back


def test_a_port_is_taken_on_every_address_and_only_once():
    port = free_port()
    with network.listen(port):
        assert network.interface_towards("127.0.0.1", port, 60) == ("127.0.0.1", "lo")
        with pytest.raises(OSError, match="in use"):
            network.listen(port)
    network.listen(port).close()


def test_a_port_is_held_once_and_given_back():
    held = network.HeldPort(0)
    with pytest.raises(OSError, match="in use"):
        network.HeldPort(held.number)
    held.close()
    again = network.HeldPort(held.number)
    again.close()


def test_a_port_taken_on_one_address_is_not_free():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(OSError, match="in use"):
        network.listen(other.getsockname()[1])


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_port_that_is_held_is_for_those_who_name_it():
    """With the few ports of a new network namespace, so that the kernel has no other choice."""
    pytest.importorskip("torch")
    program = """
from orchestrator.agent import network
held = network.HeldPort(0)
port = held.number
network.interface_towards("127.0.0.1", port, 60)
held.stop_listening()
held.stop_listening()  # the order to start may come again
given = set()
others = []
try:
    while True:
        others.append(network.listen(0))
        given.add(others[-1].getsockname()[1])
except OSError:
    print(len(given), port in given)
[other.close() for other in others]
from torch.distributed import TCPStore
for libuv in (True, False):
    try:
        network.interface_towards("127.0.0.1", port, 1)
    except ConnectionRefusedError:
        print("refused")
    store = TCPStore("127.0.0.1", port, is_master=True, use_libuv=libuv)
    store.set("a", "b")
    print(store.get("a").decode())
    del store
"""
    few = 'ip link set lo up && echo 40000 40015 > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
    argv = ["unshare", "--net", "sh", "-c", few, "sh", sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["15", "False", *["refused", "b"] * 2], done.stderr


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_both_kinds_of_address_reach_a_port():
    with network.listen(0) as listening:
        port = listening.getsockname()[1]
        assert network.interface_towards("::1", port, 60) == ("::1", "lo")


def test_a_closed_port_is_an_error_with_its_reason():
    with pytest.raises(ConnectionRefusedError):
        network.interface_towards("127.0.0.1", free_port(), 60)
