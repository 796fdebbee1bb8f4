from __future__ import annotations

import pytest

from orchestrator.errors import JobFileError
from orchestrator.hosts import Host, HostPool
from orchestrator.hosts.topology import first_ranks, hpz_groups, rank_map, resolve_hpz, uneven_hosts


def pool(*slots):
    return HostPool(tuple(Host(f"h{index}", tuple(range(count))) for index, count in enumerate(slots)))


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


def test_two_hosts_that_differ_are_named():
    assert uneven_hosts(pool(4, 4)) == ""
    assert uneven_hosts(pool(4, 4, 2)) == "h0 has 4 and h2 has 2"


def test_a_hundred_thousand_ranks_are_found_without_a_list_of_them():
    ranks = rank_map(pool(*[10] * 10_000))
    assert ranks.locate(99_999) == (9_999, 9)
    assert len(ranks.first_ranks) == 10_000
