from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import FilterError, JobFileError
from orchestrator.hosts import HostPool, parse_hostfile
from orchestrator.job import ClusterSpec
from orchestrator.job.slurm_grammar import node_names
from orchestrator.slurm.options import HostRequest, filter_allocation, host_request


def cluster(**keys):
    return ClusterSpec.model_validate({"backend": "slurm", **keys})


def names(pool: HostPool) -> dict[str, list[int]]:
    return {host.name: list(host.slots) for host in pool.hosts}


@pytest.mark.parametrize(
    ("keys", "request_"),
    [
        ({"nodes": 2, "slots": 4}, HostRequest(2, 4)),
        ({"nodes": 2, "slurm": {"gpus_per_node": "h100:8"}}, HostRequest(2, 8)),
        ({"nodes": 2, "slots": 4, "slurm": {"gpus_per_node": "8"}}, HostRequest(2, 4)),
        ({"slots": 1, "include": "n1@n2@n3"}, HostRequest(3, 1, ("n1", "n2", "n3"), "n[1-3]")),
        ({"slots": 1, "nodes": 3, "include": "n[1-3]"}, HostRequest(3, 1, ("n1", "n2", "n3"), "n[1-3]")),
        ({"slots": 2, "include": "n2:0@n1:1"}, HostRequest(2, 2, ("n2", "n1"), "n[1-2]")),
        ({"slots": 2, "nodes": 1, "exclude": "n[1-3]@m.x"}, HostRequest(1, 2, exclude="n[1-3],m.x")),
        ({"slots": 2, "nodes": 1, "exclude": "n1:0"}, HostRequest(1, 2)),
        ({"slots": 2, "nodes": 1, "exclude": "n1:0-1@n2:1"}, HostRequest(1, 2, exclude="n1")),
        ({"slots": 2, "nodes": 1, "exclude": "n1:0-1", "slurm": {"gres": "gpu:4"}}, HostRequest(1, 2)),
        (
            {"slots": 2, "nodes": 3, "slurm": {"nodelist": "n[1-2]", "exclude": "bad"}},
            HostRequest(3, 2, (), "n[1-2]", "bad"),
        ),
        (
            {"slots": 2, "nodes": 2, "slurm": {"nodelist": "n[1-2]"}},
            HostRequest(2, 2, ("n1", "n2"), "n[1-2]"),
        ),
    ],
)
def test_the_hosts_that_are_asked_for(keys, request_):
    assert host_request(cluster(**keys)) == request_


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"nodes": 3, "slots": 1, "include": "n1@n2"},
            "names 2 hosts and cluster.nodes is 3: Slurm reads --nodelist",
        ),
        ({"nodes": 1, "slots": 1, "include": "n1@n2"}, "contains all of these"),
        ({"slots": 1, "include": "n1@"}, "an empty spec"),
        ({"slots": 1, "include": "n1@n1:0"}, "named as a whole and with slots"),
        ({"slots": 1, "include": "[fe80::1]"}, "include: is no name of a Slurm node (got fe80::1)"),
        ({"nodes": 1, "slots": 1, "exclude": "a,b"}, "exclude: is no name of a Slurm node (got a,b)"),
        ({"slots": 1}, "cluster.nodes: Slurm has to be told how many hosts"),
        ({"nodes": 1}, "cluster.slots: neither cluster.slots nor a number of GPUs"),
        ({"nodes": 1, "slurm": {"gpus_per_node": "0"}}, "cluster.slots: neither"),
    ],
)
def test_hosts_that_cannot_be_asked_for(keys, says):
    with pytest.raises(JobFileError) as caught:
        host_request(cluster(**keys))
    assert says in str(caught.value)
    assert all(problem.fix for problem in caught.value.problems)


GOT = parse_hostfile("n1 slots=4\nn2 slots=4\n", "allocation")


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, {"n1": [0, 1, 2, 3], "n2": [0, 1, 2, 3]}),
        ({"exclude": "n1:0@n7:2@n9"}, {"n1": [1, 2, 3], "n2": [0, 1, 2, 3]}),
        ({"exclude": "n7"}, {"n1": [0, 1, 2, 3], "n2": [0, 1, 2, 3]}),
        ({"exclude": "n1:0-3"}, {"n2": [0, 1, 2, 3]}),
        ({"include": "n2:1,3@n7:9"}, {"n2": [1, 3]}),
        ({"include": "n[1-5]"}, {"n1": [0, 1, 2, 3], "n2": [0, 1, 2, 3]}),
    ],
)
def test_filters_inside_an_allocation_pass_over_hosts_that_it_lacks(filters, left):
    assert names(filter_allocation(GOT, filters.get("include"), filters.get("exclude"))) == left


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"exclude": "n1:4@n7:9"}, "exclude: host n1 has no slot 4"),
        ({"include": "n1:0-7"}, "include: host n1 has no slot 4-7"),
        ({"exclude": "n[1-9]"}, "exclude: no host is left"),
        ({"include": "n7"}, "include: none of these hosts is among the 2 of the pool: n1, n2"),
        ({"exclude": "n7:"}, "bad range or slot"),
    ],
)
def test_filters_that_do_not_fit_the_allocation(filters, says):
    with pytest.raises(FilterError) as caught:
        filter_allocation(GOT, filters.get("include"), filters.get("exclude"))
    assert says in str(caught.value)


@given(st.lists(st.from_regex(r"[a-z]{1,3}(-[0-9])?[0-9]{0,3}", fullmatch=True), min_size=1, unique=True))
def test_excluded_hosts_can_be_read_back(hosts):
    text = host_request(cluster(nodes=1, slots=1, exclude="@".join(hosts))).exclude
    assert sorted(node_names(str(text))) == sorted(hosts)
