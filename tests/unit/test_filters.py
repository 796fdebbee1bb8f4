from __future__ import annotations

import pytest

from orchestrator.errors import FilterError
from orchestrator.hosts import Host, parse_hostfile
from orchestrator.hosts.filters import apply_filters

POOL = parse_hostfile("worker-0 slots=4\nworker-1 slots=4\n", "hosts")
SIX = parse_hostfile("bob@a slots=2\n[fe80::1] slots=4\nn[1-4] slots=2\n", "hosts")
ALL = [0, 1, 2, 3]


def chosen(pool, **filters):
    return {host.name: list(host.slots) for host in apply_filters(pool, **filters).hosts}


def problems_of(pool=POOL, **filters):
    with pytest.raises(FilterError) as caught:
        apply_filters(pool, **filters)
    return caught.value.problems


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("worker-0", {"worker-0": ALL}),
        ("worker-0@worker-1:0,2", {"worker-0": ALL, "worker-1": [0, 2]}),
        ("worker-1:0,3", {"worker-1": [0, 3]}),
        ("worker-0:3,1,1", {"worker-0": [1, 3]}),
        ("worker-0:3@worker-0:1", {"worker-0": [1, 3]}),
        ("worker-0@worker-0", {"worker-0": ALL}),
        ("worker-0:00", {"worker-0": [0]}),
    ],
)
def test_include_means_what_deepspeed_documents(include, expected):
    assert chosen(POOL, include=include) == expected


def test_slots_are_sorted_by_number():
    wide = parse_hostfile("w slots=64", "hosts")
    assert chosen(wide, include="w:32,8,1,16") == {"w": [1, 8, 16, 32]}


def test_the_result_is_in_hostfile_order():
    assert list(chosen(POOL, include="worker-1@worker-0")) == ["worker-0", "worker-1"]


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("worker-0", {"worker-1": ALL}),
        ("worker-0:0,1@worker-1:3", {"worker-0": [2, 3], "worker-1": [0, 1, 2]}),
        ("worker-0:0,1,2,3", {"worker-1": ALL}),
        ("worker-0:2,2", {"worker-0": [0, 1, 3], "worker-1": ALL}),
    ],
)
def test_exclude_means_what_deepspeed_documents(exclude, expected):
    assert chosen(POOL, exclude=exclude) == expected


@pytest.mark.parametrize("nothing", [{}, {"include": None}, {"include": "", "exclude": ""}])
def test_no_filter_leaves_the_pool_alone(nothing):
    assert apply_filters(POOL, **nothing) is POOL


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("worker-[0-1]", {"worker-0": ALL, "worker-1": ALL}),
        ("worker-[0-1]:0-2", {"worker-0": [0, 1, 2], "worker-1": [0, 1, 2]}),
        ("worker-0:0-1,3", {"worker-0": [0, 1, 3]}),
    ],
)
def test_ranges_of_names_and_slots_are_ours(include, expected):
    assert chosen(POOL, include=include) == expected


def test_ipv6_names_are_filtered_in_brackets():
    assert chosen(SIX, include="[fe80::1]:0,2@n2") == {"fe80::1": [0, 2], "n2": [0, 1]}
    assert "fe80::1" not in chosen(SIX, exclude="[fe80::1]")


def test_user_port_and_address_survive_a_filter():
    assert apply_filters(SIX, include="a:1").hosts == (Host("a", (1,), user="bob"),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("jeff", "host 'jeff' is not in the hostfile"),
        ("jeff:0", "hosts are worker-0, worker-1"),
        ("worker-2", "did you mean worker-"),
        ("Worker-0", "did you mean worker-0"),
        ("worker0", "did you mean worker-0"),
        ("worker-0,worker-1", "hosts are parted by @"),
        ("worker-0:9", "host worker-0 has no slot 9"),
        ("worker-0:2-6", "host worker-0 has no slot 4-6"),
        ("worker-0:9", "it has 0-3"),
        ("worker-[0-2]", "host 'worker-2' is not in the hostfile"),
        ("worker-[0-", "a bracket has no partner"),
        ("worker-0:-1", "'-1' is not a number"),
        ("worker-0:+1", "'+1' is not a number"),
        ("worker-0:1_0", "'1_0' is not a number"),
        ("worker-0:3-1", "runs backwards"),
        ("worker-0:", "'' is not a number"),
        ("worker-0:0,", "'' is not a number"),
        ("worker-0:0:1", "more than one :"),
        ("fe80::1", "[fe80::1]:0,1"),
        (" worker-0 ", "no spaces"),
        ("worker-0: 0", "no spaces"),
        ("worker-0@", "an empty spec"),
        ("@worker-0", "an empty spec"),
        ("worker-0@@worker-1", "an empty spec"),
        ("worker-1:0@worker-1", "host worker-1 is named as a whole and with slots"),
        ("worker-1@worker-1:0", "host worker-1 is named as a whole and with slots"),
    ],
)
@pytest.mark.parametrize("kind", ["include", "exclude"])
def test_a_wrong_spec_is_an_error_that_says_where_and_what_to_do(kind, text, says):
    (problem,) = problems_of(**{kind: text})
    assert problem.where == kind
    assert problem.fix
    assert says in str(problem)


def test_both_filters_at_once_are_an_error():
    (problem,) = problems_of(include="worker-0", exclude="worker-1")
    assert "both given" in problem.what


@pytest.mark.parametrize("exclude", ["worker-0@worker-1", "worker-[0-1]:0-3"])
def test_excluding_every_host_is_an_error_that_names_them(exclude):
    (problem,) = problems_of(exclude=exclude)
    assert "no host is left: worker-0, worker-1" in problem.what
    assert problem.value == exclude


def test_all_wrong_specs_are_reported_at_once():
    assert len(problems_of(include="jeff@worker-0:9@worker-1:x@@worker-1")) == 4


def test_a_user_in_front_of_a_host_is_explained():
    (problem,) = problems_of(SIX, include="bob@a")
    assert "without its user" in problem.fix
