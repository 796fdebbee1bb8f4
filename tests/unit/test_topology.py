from __future__ import annotations

import pytest

from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.hosts.topology import check_topology, first_ranks, hpz_groups, rank_map, resolve_hpz


def pool(*slots):
    return HostPool(tuple(Host(f"h{index}", tuple(range(count))) for index, count in enumerate(slots)))


def errors(hosts, **settings):
    return [problem.what for problem in check_topology(hosts, zero_stage=3, **settings).errors]


def test_ranks_are_numbered_host_by_host():
    ranks = rank_map(pool(3, 1, 2))
    assert first_ranks(pool(3, 1, 2)) == (0, 3, 4)
    assert [list(ranks.ranks(index)) for index in range(3)] == [[0, 1, 2], [3], [4, 5]]
    assert [ranks.locate(rank) for rank in range(6)] == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("rank", [-1, 6])
def test_a_rank_outside_the_world_is_on_no_host(rank):
    with pytest.raises(IndexError, match="of 6"):
        rank_map(pool(3, 3)).locate(rank)


def test_hpz_groups_are_consecutive_ranks_that_cover_the_world_once():
    assert [list(group) for group in hpz_groups(6, 2)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="groups of 4"):
        hpz_groups(6, 4)


def test_hpz_node_is_the_slots_of_a_host():
    assert resolve_hpz("node", pool(4, 4)) == 4
    assert resolve_hpz(2, pool(3, 5)) == 2


def test_hpz_node_on_unequal_hosts_is_an_error_that_names_two():
    with pytest.raises(JobFileError, match="h0 has 4 and h2 has 2"):
        resolve_hpz("node", pool(4, 4, 2))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_groups_that_fit_hosts_are_fine(size):
    report = check_topology(
        pool(4, 4), zero_stage=3, hpz=size, quantized_weights=True, quantized_gradients=True
    )
    assert report.errors == report.warnings == ()


def test_a_group_on_two_hosts_is_an_error_that_names_them():
    assert errors(pool(3, 3), hpz=2) == ["the hpZ group of ranks 2 to 3 lies on 2 hosts (h0, h1)"]
    assert errors(pool(2, 2, 2, 2), hpz=4) == ["the hpZ group of ranks 0 to 3 lies on 2 hosts (h0, h1)"]


def test_a_world_that_does_not_divide_is_an_error():
    assert "9 ranks do not divide into hpZ groups of this size" in errors(pool(3, 3, 3), hpz=2)


def test_a_group_larger_than_the_world_is_one_error():
    assert errors(pool(2, 2), hpz=8) == ["an hpZ group is larger than the whole run of 4 ranks"]


@pytest.mark.parametrize("settings", [{"hpz": 2}, {"quantized_gradients": True}])
def test_unequal_hosts_are_an_error_even_where_groups_fit(settings):
    assert errors(pool(4, 2), **settings) == [
        "ZeRO++ needs the same number of slots everywhere: h0 has 4 and h1 has 2"
    ]


@pytest.mark.parametrize("settings", [{}, {"hpz": 0}, {"hpz": 1}, {"quantized_weights": True}])
def test_unequal_hosts_are_fine_for_the_rest(settings):
    report = check_topology(pool(4, 2), zero_stage=3, **settings)
    assert report.errors == report.warnings == ()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_below_stage_3_zeropp_does_nothing_and_a_warning_says_so(stage):
    report = check_topology(
        pool(3, 2), zero_stage=stage, hpz=2, quantized_weights=True, quantized_gradients=True
    )
    assert report.errors == ()
    assert [problem.where for problem in report.warnings] == [
        "deepspeed.hpz",
        "deepspeed.quantized_weights",
        "deepspeed.quantized_gradients",
    ]


def test_on_a_single_host_hpz_and_qgz_gain_nothing():
    report = check_topology(pool(4), zero_stage=3, hpz=4, quantized_weights=True, quantized_gradients=True)
    assert report.errors == ()
    assert [problem.where for problem in report.warnings] == [
        "deepspeed.hpz",
        "deepspeed.quantized_gradients",
    ]


def test_a_hundred_thousand_ranks_are_found_without_a_list_of_them():
    ranks = rank_map(pool(*[10] * 10_000))
    assert ranks.locate(99_999) == (9_999, 9)
    assert len(ranks.first_ranks) == 10_000
